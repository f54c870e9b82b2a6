//! The default seccomp profile: the form in which Debian's package ships it, translated to that of a runtime's
//! configuration, for what a container may and where it runs. Other runtimes have all but the same in their code.

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Debian's package `golang-github-containers-common`.
const PROFILE: &str = "/usr/share/containers/seccomp.json";

/// Of the machine: the lab's are all of this one.
const ARCHITECTURE: Architecture = Architecture { name: "amd64", libseccomp: "SCMP_ARCH_X86_64" };

/// What a call that is not listed says where the profile says nothing of it.
const EPERM: u32 = 1;

struct Architecture {
    /// As the profile's conditions have it.
    name: &'static str,
    /// As libseccomp has it.
    libseccomp: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    arch_map: Vec<ArchitectureMap>,
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchitectureMap {
    architecture: String,
    sub_architectures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Value>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

impl Rule {
    /// Whether it is for a container with these capabilities.
    fn applies(&self, capabilities: &[String]) -> bool {
        let has = |wanted: &String| capabilities.contains(wanted);
        let is_here = |arches: &[String]| arches.iter().any(|name| name == ARCHITECTURE.name);
        let is_excluded = is_here(&self.excludes.arches) || self.excludes.caps.iter().any(has);
        let is_elsewhere = !self.includes.arches.is_empty() && !is_here(&self.includes.arches);
        // Every kernel of the lab is newer than those that a profile names.
        assert!(self.excludes.min_kernel.is_none(), "a rule for old kernels alone: {:?}", self.names);
        !is_excluded && !is_elsewhere && self.includes.caps.iter().all(has)
    }

    fn translated(&self) -> Value {
        let mut rule =
            Map::from_iter([("names".to_owned(), json!(self.names)), ("action".to_owned(), json!(self.action))]);
        rule.extend(self.errno_ret.map(|number| ("errnoRet".to_owned(), json!(number))));
        rule.extend(self.args.iter().filter(|args| !args.is_empty()).map(|args| ("args".to_owned(), json!(args))));
        rule.into()
    }
}

/// `linux.seccomp` of a runtime's configuration, for a container with these capabilities (`CAP_…`).
pub fn runtime_default(capabilities: &[String]) -> Value {
    let profile = std::fs::read_to_string(PROFILE).unwrap_or_else(|error| {
        panic!("{PROFILE} ({error}): the case lacks the package golang-github-containers-common")
    });
    translate(&profile, capabilities)
}

fn translate(profile: &str, capabilities: &[String]) -> Value {
    let profile: Profile = serde_json::from_str(profile).unwrap_or_else(|error| panic!("{PROFILE}: {error}"));
    let map = profile.arch_map.iter().find(|map| map.architecture == ARCHITECTURE.libseccomp);
    let map = map.unwrap_or_else(|| panic!("{PROFILE} has no rules for {}", ARCHITECTURE.name));
    let architectures: Vec<&String> = [&map.architecture].into_iter().chain(&map.sub_architectures).collect();
    let rules = profile.syscalls.iter().filter(|rule| rule.applies(capabilities));
    json!({
        "defaultAction": profile.default_action,
        "defaultErrnoRet": profile.default_errno_ret.unwrap_or(EPERM),
        "architectures": architectures,
        "syscalls": rules.map(Rule::translated).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::translate;
    use serde_json::json;

    #[test]
    fn rules_are_those_for_the_capabilities_and_the_architecture() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS",
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {}},
                {"names": ["cacheflush"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
                {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
                {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["kcmp"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_KILL"]}},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            ],
        });
        let expected = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            ],
        });
        assert_eq!(translate(&profile.to_string(), &["CAP_KILL".to_owned()]), expected);
    }
}
