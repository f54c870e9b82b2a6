//! Programs that manage a node's links, the real ones, which take the program's for one of theirs. What pods see is
//! that the node answers again, and nobody undoes the other's work without end.

use crate::case::{CASE, Case, Kernel};
use crate::cluster::{LOCALS, shell};
use crate::guest::case::note;
use crate::node::{START, Scene, settled};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PACKAGES: &[&str] =
    &["dbus-bin", "dbus-daemon", "dbus-system-bus-common", "libsystemd-shared", "network-manager", "systemd"];

const NETWORKD: Case = Case { packages: PACKAGES, limit: Duration::from_secs(600), ..CASE };

/// The family's.
pub const CASES: &[Case] = &[
    Case {
        name: "managers/networkd_reconfigures_sets_down_and_deletes_the_link",
        body: networkd,
        kernels: &[Kernel::OldestCloud, Kernel::NewestCloud],
        ..NETWORKD
    },
    Case { name: "managers/network_manager_takes_the_link_for_its_own", body: network_manager, ..NETWORKD },
];

/// How often a link may be given its addresses for each thing that is done to it. Twice where it is deleted: somebody
/// may flush the new one.
const MENDS: usize = 3;

/// A program that runs until this is dropped, its output among what is written down of a case that fails.
struct Daemon(Child);

impl Daemon {
    fn start(name: &str, program: &str, arguments: &[&str]) -> Self {
        let log = format!("/tmp/nodelocaldns-test-{name}");
        let log = std::fs::File::create(&log).unwrap_or_else(|e| panic!("{log}: {e}"));
        let errors = log.try_clone().expect("a second handle to the log");
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log).stderr(errors);
        Self(command.spawn().unwrap_or_else(|e| panic!("starting {command:?}: {e}")))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _it_may_have_ended = self.0.kill();
        let _it_is_reaped = self.0.wait();
    }
}

/// The system's bus, with the users that it and its clients run as. Links are ready without udev where `/sys` cannot be
/// written, as in a container.
fn bus() -> Daemon {
    shell(
        "cp /etc/passwd /tmp/passwd
        for user in messagebus:901 systemd-network:902; do
            grep -q ^${user%:*}: /tmp/passwd || echo ${user%:*}:x:${user#*:}:${user#*:}::/:/bin/false >>/tmp/passwd
        done
        mount -o bind /tmp/passwd /etc/passwd
        [ -s /etc/machine-id ] || echo 0123456789abcdef0123456789abcdef >/etc/machine-id
        mkdir -p /run/dbus
        mount -o remount,ro /sys",
    );
    let bus = Daemon::start("bus", "dbus-daemon", &["--system", "--nofork", "--nopidfile"]);
    settled("the bus is there", || std::path::Path::new("/run/dbus/system_bus_socket").exists(), String::new);
    bus
}

/// Counts how often an address of ours was put on the link, as the kernel tells everybody.
struct Watch {
    _monitor: Daemon,
}

const SEEN: &str = "/tmp/nodelocaldns-test-addresses";

impl Watch {
    fn start() -> Self {
        Self { _monitor: Daemon::start("addresses", "ip", &["-oneline", "monitor", "address"]) }
    }

    fn mends() -> usize {
        let seen = std::fs::read_to_string(SEEN).unwrap_or_default();
        let of_ours = seen.lines().filter(|line| line.contains(&format!(" {}/32 ", LOCALS[0])));
        of_ours.filter(|line| !line.contains("Deleted")).count()
    }
}

/// Does each of these things to a node in service, waits until the node answers everybody again, and counts what that
/// took. What is lost meanwhile the user sees.
fn meddle(scene: &mut Scene, harms: &[&str]) {
    let _watch = Watch::start();
    for harm in harms {
        let before = Watch::mends();
        let what = harm.lines().last().unwrap_or_default().trim();
        scene.ask_during(what, |scene| {
            shell(harm);
            scene.await_service();
        });
        let mends = Watch::mends() - before;
        note(format_args!("{what}: addresses put on {mends} times"));
        assert!(mends <= MENDS, "{what}: {mends} mends\n{}", scene.agent.watchdog.tail(30));
    }
    scene.doctor(0);
}

/// A file for all links but those of pods and the uplink, which networkd would take their addresses off, too.
const ALL_LINKS: &str = "mkdir -p /run/systemd/network
    printf '[Match]\\nName=!lo veth* uplink\\n[Network]\\nDHCP=no\\nLinkLocalAddressing=no\\nKeepConfiguration=no\\n' \\
        >/run/systemd/network/10-all.network
    networkctl reload";

fn networkd() {
    let _bus = bus();
    shell(
        "mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp /run/systemd/network
        chown -R systemd-network /run/systemd/netif",
    );
    let mut scene = Scene::start(&START);
    let _networkd = Daemon::start("networkd", "/usr/lib/systemd/systemd-networkd", &[]);
    let knows = || shell("networkctl list --no-pager 2>&1 || :").contains("nodelocaldns");
    settled("networkd knows the link", knows, String::new);
    meddle(
        &mut scene,
        &[
            ALL_LINKS,
            "networkctl reconfigure nodelocaldns",
            "networkctl down nodelocaldns",
            "networkctl delete nodelocaldns",
            "printf '[Link]\\nActivationPolicy=always-down\\n' >>/run/systemd/network/10-all.network
            networkctl reload
            networkctl reconfigure nodelocaldns
            rm /run/systemd/network/10-all.network
            networkctl reload",
        ],
    );
    scene.end();
}

/// Of what is on a node it manages all but pods' links, which its rules for udev keep from it, and the uplink.
const SETTINGS: &str = "mount -t tmpfs tmpfs /etc/NetworkManager
    mkdir -p /etc/NetworkManager/system-connections /var/lib/NetworkManager
    mount -t tmpfs tmpfs /var/lib/NetworkManager
    printf '[main]\\nplugins=keyfile\\nauth-polkit=false\\ndns=none\\nno-auto-default=*\\n' \\
        >/etc/NetworkManager/NetworkManager.conf
    printf '[keyfile]\\nunmanaged-devices=interface-name:veth*;interface-name:uplink;interface-name:lo\\n' \\
        >>/etc/NetworkManager/NetworkManager.conf
    printf '[device]\\nkeep-configuration=no\\n' >>/etc/NetworkManager/NetworkManager.conf";

fn network_manager() {
    let _bus = bus();
    shell(SETTINGS);
    let mut scene = Scene::start(&START);
    let _manager = Daemon::start("network-manager", "NetworkManager", &["--no-daemon"]);
    let knows = || shell("nmcli --terse device 2>&1 || :").contains("nodelocaldns:");
    settled("NetworkManager knows the link", knows, || shell("nmcli device; ip link"));
    meddle(
        &mut scene,
        &[
            "nmcli device set nodelocaldns managed yes",
            "kind=$(nmcli --get-values GENERAL.TYPE device show nodelocaldns)
            nmcli connection add type $kind ifname nodelocaldns con-name own ipv4.method disabled ipv6.method ignore
            nmcli connection up own",
            "nmcli device reapply nodelocaldns",
            "nmcli connection down own",
            "nmcli connection up own",
        ],
    );
    // A profile without IPv6 switches it off on the link. Everybody is answered, by KubeDNS where the node cannot.
    scene.ask_during("ipv6.method disabled", |scene| {
        shell("nmcli connection modify own ipv6.method disabled; nmcli connection up own");
        let said = || scene.agent.watchdog.output();
        settled("it says so", || said().contains("IPv6 is disabled there"), said);
        let is_answered = || scene.ask_for(Duration::from_secs(1)).lost() == 0;
        settled("everybody is answered", is_answered, said);
    });
    meddle(
        &mut scene,
        &["nmcli connection delete own
            nmcli device delete nodelocaldns || :
            nmcli device set nodelocaldns managed no || :
            echo 0 >/proc/sys/net/ipv6/conf/nodelocaldns/disable_ipv6 || :"],
    );
    scene.end();
}
