use super::{
    AdminSocket, AdminTarget, Agent, CorefileArgument, Doctor, FallbackTo, Flags, FormatMode, Invocation, Mode,
    OutputFormat, QueriesForm, ServeOptions, Shell, StatusUrl, TopMode, WatchQueries,
};
use crate::admin::{CacheRequest, FlushTarget, LogLevelRequest, QueriesRequest};
use crate::chain::{Level, LogFormat};
use crate::node::Backend;
use crate::query_tap::FilterText;
use crate::watchdog::StatusPage;
use clap::CommandFactory;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

fn parse(arguments: &[&str]) -> Result<Invocation, String> {
    let arguments = std::iter::once("nodelocaldns").chain(arguments.iter().copied()).map(OsString::from);
    Invocation::parse(arguments).map_err(|error| error.to_string())
}

fn serve(arguments: &[&str]) -> ServeOptions {
    match parse(arguments) {
        Ok(Invocation::Serve(options)) => options,
        other => panic!("{arguments:?}: {other:?}"),
    }
}

/// Of a command line that begins with `-localip 169.254.20.10`.
fn agent(arguments: &[&str]) -> Agent {
    match serve(&[&["-localip", "169.254.20.10"], arguments].concat()).mode {
        Mode::Agent(agent) => *agent,
        Mode::Plain(corefile) => panic!("{arguments:?}: {corefile:?}"),
    }
}

fn refused(arguments: &[&str]) -> String {
    parse(arguments).expect_err(&format!("{arguments:?}"))
}

#[test]
fn the_declaration_is_consistent() {
    Flags::command().debug_assert();
}

#[test]
fn without_arguments_nothing_of_the_machine_is_touched() {
    let options = serve(&[]);
    assert_eq!(options.mode, Mode::Plain(CorefileArgument::BuiltIn));
    assert_eq!(
        (options.metrics_listen_address, options.dns_port, options.pidfile, options.quiet),
        (None, 53, None, false)
    );
}

#[test]
fn flags_may_have_one_dash_or_two_and_a_space_or_an_equals_sign() {
    for arguments in [&["-conf", "a"][..], &["--conf", "a"], &["-conf=a"], &["--conf=a"], &["-conf", "b", "-conf", "a"]]
    {
        assert_eq!(serve(arguments).mode, Mode::Plain(CorefileArgument::File(PathBuf::from("a"))), "{arguments:?}");
    }
    for arguments in [&["-p", "5353"][..], &["-p=5353"], &["--p=5353"], &["-dns.port=5353"], &["--dns.port", "5353"]] {
        assert_eq!(serve(arguments).dns_port, 5353, "{arguments:?}");
    }
}

#[test]
fn log_lines_are_text_or_json() {
    for (arguments, expected) in [
        (&[][..], LogFormat::Text),
        (&["--log-format", "text"], LogFormat::Text),
        (&["-log-format=json", "-localip", "169.254.20.10"], LogFormat::Json),
    ] {
        assert_eq!(serve(arguments).log_format, expected, "{arguments:?}");
    }
    assert!(refused(&["--log-format", "logfmt"]).contains("json"), "what is possible is told");
}

#[test]
fn conf_wins_over_corefile_and_stdin_is_standard_input() {
    assert_eq!(serve(&["-corefile", "b"]).mode, Mode::Plain(CorefileArgument::File("b".into())));
    assert_eq!(serve(&["-corefile", "b", "-conf", "a"]).mode, Mode::Plain(CorefileArgument::File("a".into())));
    assert_eq!(serve(&["-corefile", "b", "-conf="]).mode, Mode::Plain(CorefileArgument::File("b".into())));
    assert_eq!(serve(&["-conf", "stdin"]).mode, Mode::Plain(CorefileArgument::Stdin));
}

#[test]
fn a_boolean_takes_its_value_after_an_equals_sign_only() {
    assert!(serve(&["-quiet"]).quiet);
    assert!(serve(&["-quiet=T", "-conf", "a"]).quiet);
    assert!(!serve(&["-quiet=false"]).quiet);
    assert!(!serve(&["-quiet", "-quiet=0"]).quiet);
    assert!(refused(&["-quiet", "false"]).contains("false"));
    assert!(refused(&["-quiet=maybe"]).contains("true or false"));
}

#[test]
fn the_agents_defaults_are_the_references() {
    let options = serve(&["-localip", "169.254.20.10"]);
    assert_eq!(options.metrics_listen_address, Some("0.0.0.0:9353".parse().unwrap()));
    let expected = Agent {
        local_addresses: vec!["169.254.20.10".parse().unwrap()],
        interface: Some("nodelocaldns".to_owned()),
        interception: Backend::Auto,
        sync_interval: Duration::from_secs(60),
        probe_mark: 0x0010_0000,
        fallback: FallbackTo::Upstream,
        fallback_mark: 0x1000,
        health_port: 8080,
        skip_teardown: false,
        template: "/etc/coredns/Corefile.base".into(),
        conf: "/etc/Corefile".into(),
        kube_dns: None,
        upstream_service: "kube-dns".to_owned(),
        prometheus_listen_address: ":9253".to_owned(),
    };
    assert_eq!(options.mode, Mode::Agent(Box::new(expected)));
}

#[test]
fn every_flag_of_the_reference_is_taken_in_its_spelling() {
    let options = serve(&[
        "-localip",
        "169.254.20.10,fd00::10",
        "-setupinterface=false",
        "-interfacename",
        "dns0",
        "-syncinterval",
        "90",
        "-metrics-listen-address",
        ":9354",
        "-prometheus-listen-address",
        "127.0.0.1:9254",
        "-setupiptables=false",
        "-basecorefile",
        "/base",
        "-corefile",
        "/corefile",
        "-conf",
        "/conf",
        "-dns.port",
        "5353",
        "-pidfile",
        "/pid",
        "-kubednscm",
        "/cm",
        "-upstreamsvc",
        "kube-dns-upstream",
        "-health-port",
        "8081",
        "-skipteardown",
        "-reloadwithsignal",
        "-quiet",
        "-plugins=false",
        "-version=false",
    ]);
    let expected = ServeOptions {
        mode: Mode::Agent(Box::new(Agent {
            local_addresses: vec!["169.254.20.10".parse().unwrap(), "fd00::10".parse().unwrap()],
            interface: None,
            interception: Backend::None,
            sync_interval: Duration::from_secs(90),
            probe_mark: 0x0010_0000,
            fallback: FallbackTo::Upstream,
            fallback_mark: 0x1000,
            health_port: 8081,
            skip_teardown: true,
            template: "/base".into(),
            conf: "/conf".into(),
            kube_dns: Some("/cm".into()),
            upstream_service: "kube-dns-upstream".to_owned(),
            prometheus_listen_address: "127.0.0.1:9254".to_owned(),
        })),
        dns_port: 5353,
        pidfile: Some("/pid".into()),
        quiet: true,
        log_format: LogFormat::Text,
        metrics_listen_address: Some("[::]:9354".parse().unwrap()),
        status_page: StatusPage::NamesHere,
        admin_socket: AdminSocket::Own,
        workers: None,
        handover: None,
        cache_memory: None,
    };
    assert_eq!(options, expected);
}

#[test]
fn interception_and_setupiptables_must_agree() {
    for (arguments, expected) in [
        (&["--interception", "nftables"][..], Backend::Nftables),
        (&["--interception=iptables", "-setupiptables"], Backend::Iptables),
        (&["--interception=auto"], Backend::Auto),
        (&["--interception=none"], Backend::None),
        (&["--interception=none", "-setupiptables=false"], Backend::None),
    ] {
        assert_eq!(agent(arguments).interception, expected, "{arguments:?}");
    }
    let refused = |arguments: &[&str]| refused(&[&["-localip", "169.254.20.10"], arguments].concat());
    assert!(refused(&["--interception=none", "-setupiptables=true"]).contains("take one of them away"));
    assert!(refused(&["--interception=nftables", "-setupiptables=false"]).contains("take one of them away"));
    assert!(refused(&["--interception=ebpf"]).contains("nftables"), "what is possible is told");
}

#[test]
fn the_fallback_is_found_or_named_and_never_one_of_our_own_addresses() {
    let addresses = |ipv4: &str, ipv6: Option<&str>| FallbackTo::Addresses {
        ipv4: Some(ipv4.parse().unwrap()),
        ipv6: ipv6.map(|ipv6| ipv6.parse().unwrap()),
    };
    for (arguments, expected) in [
        (&["--fallback", "auto"][..], FallbackTo::Upstream),
        (&["--fallback=none"], FallbackTo::Nowhere),
        (&["--fallback=none", "--interception=none"], FallbackTo::Nowhere),
        (&["--fallback", "10.96.0.11"], addresses("10.96.0.11", None)),
        (&["--fallback", "fd00::11,10.96.0.11"], addresses("10.96.0.11", Some("fd00::11"))),
    ] {
        assert_eq!(agent(arguments).fallback, expected, "{arguments:?}");
    }
    let refused = |arguments: &[&str]| refused(&[&["-localip", "169.254.20.10"], arguments].concat());
    for (value, part) in [
        ("10.96.0.11,10.96.0.12", "a second address of its family"),
        ("cluster", "`cluster` is no IP address"),
        ("127.0.0.1", "no address of cluster DNS"),
        ("::", "no address of cluster DNS"),
        ("169.254.20.10", "is an address of -localip"),
        ("::ffff:169.254.20.10", "is an address of -localip"),
    ] {
        let said = refused(&["--fallback", value]);
        assert!(said.contains(part), "{value}: {said}");
    }
    assert!(refused(&["--fallback", "10.96.0.11", "-setupiptables=false"]).contains("needs interception rules"));
}

#[test]
fn the_fallback_s_mark_is_one_bit_that_is_nobody_else_s() {
    assert_eq!(agent(&["--fallback-mark", "0x2000"]).fallback_mark, 0x2000);
    assert_eq!(agent(&["--fallback-mark", "0x00100000", "--probe-mark", "0x1000"]).fallback_mark, 0x10_0000);
    let refused = |arguments: &[&str]| refused(&[&["-localip", "169.254.20.10"], arguments].concat());
    for (mark, part) in
        [("0x3000", "one bit"), ("0x4000", "kube-proxy"), ("0x8000", "kube-proxy"), ("0x100000", "--probe-mark")]
    {
        let said = refused(&["--fallback-mark", mark]);
        assert!(said.contains(part), "{mark}: {said}");
    }
    assert_eq!(agent(&["--probe-mark", "0x3000", "--fallback", "none"]).probe_mark, 0x3000);
    assert!(refused(&["--probe-mark", "0x3000"]).contains("--fallback-mark 0x1000 is a bit of --probe-mark"));
}

#[test]
fn what_is_for_the_agent_needs_its_addresses() {
    for arguments in [
        &["-setupinterface"][..],
        &["-setupiptables=true"],
        &["-interfacename", "x"],
        &["--interception", "auto"],
        &["-syncinterval", "60"],
        &["--probe-mark", "1"],
        &["--fallback", "10.96.0.11"],
        &["--fallback-mark", "0x2000"],
        &["-health-port", "8080"],
        &["-skipteardown"],
        &["-basecorefile", "/base"],
        &["-kubednscm", "/cm"],
        &["-upstreamsvc", "x"],
        &["-prometheus-listen-address", ":9253"],
        &["-reloadwithsignal"],
    ] {
        let said = refused(arguments);
        let name = arguments[0].split('=').next().unwrap();
        assert!(said.contains(&format!("{name} is for")) && said.contains("-localip"), "{arguments:?}: {said}");
    }
    let harmless = [
        "-setupinterface=false",
        "-setupiptables=false",
        "--interception=none",
        "--fallback=none",
        "-skipteardown=false",
    ];
    assert_eq!(serve(&harmless).mode, Mode::Plain(CorefileArgument::BuiltIn));
}

#[test]
fn a_wrong_value_is_named_with_its_flag() {
    for (arguments, parts) in [
        (&["-localip", "10.0.0.1,10.0.0"][..], &["localip", "`10.0.0` is no IP address"][..]),
        (&["-localip", ""], &["localip"]),
        (&["-dns.port", "dns"], &["dns.port", "65535"]),
        (&["-localip", "10.0.0.1", "-health-port", "0"], &["health-port", "65535"]),
        (&["-localip", "10.0.0.1", "-syncinterval", "soon"], &["syncinterval", "duration"]),
        (&["-metrics-listen-address", "9353"], &["metrics-listen-address", "the port is missing"]),
        (&["-localip", "10.0.0.1", "-conf", "stdin"], &["-conf", "stdin"]),
        (&["--no-such-flag"], &["no-such-flag"]),
        (&["extra"], &["extra"]),
    ] {
        let said = refused(arguments);
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: {part:?} is not in:\n{said}");
        }
    }
}

#[test]
fn an_address_that_no_link_can_carry_is_refused() {
    for address in ["0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "ff02::1", "255.255.255.255"] {
        for command in [&[][..], &["teardown"]] {
            let said = refused(&[command, &["-localip", &format!("169.254.20.10,{address}")]].concat());
            assert!(said.contains(&format!("`{address}` ")) && said.contains("169.254.20.10,10.96.0.10"), "{said}");
        }
    }
    let mapped = serve(&["-localip", "::ffff:10.96.0.10,10.96.0.10"]);
    assert!(
        matches!(mapped.mode, Mode::Agent(agent) if agent.local_addresses == ["10.96.0.10".parse::<std::net::IpAddr>().unwrap()])
    );
}

#[test]
fn fmt_prints_unless_told_otherwise_and_render_has_the_agents_defaults() {
    let fmt = |how| Ok(Invocation::Format { files: vec!["a".into()], how });
    assert_eq!(parse(&["fmt", "a"]), fmt(FormatMode::Print));
    assert_eq!(parse(&["fmt", "--write", "a"]), fmt(FormatMode::Write));
    assert_eq!(parse(&["fmt", "--check", "a"]), fmt(FormatMode::Check));
    assert!(parse(&["fmt", "--check", "--write", "a"]).is_err() && parse(&["fmt"]).is_err());
    assert!(parse(&["render"]).is_err(), "the addresses are part of what is rendered");
    let Ok(Invocation::Render(render)) = parse(&["render", "-localip", "169.254.20.10", "-basecorefile", "x"]) else {
        panic!("render is read")
    };
    let agent = serve(&["-localip", "169.254.20.10", "-basecorefile", "x"]);
    let Mode::Agent(agent) = agent.mode else { panic!("an agent") };
    assert_eq!(render.local_addresses, agent.local_addresses);
    assert_eq!((render.template, render.kube_dns), (agent.template, agent.kube_dns));
    assert_eq!(render.upstream_service, agent.upstream_service);
    assert_eq!((render.prometheus_listen_address, render.dns_port), (agent.prometheus_listen_address, 53));
}

#[test]
fn check_wants_at_least_one_file() {
    assert!(parse(&["check"]).is_err());
    let strictly = Invocation::Check { files: vec!["a".into()], is_strict: true, is_portable: true };
    assert_eq!(parse(&["check", "--strict", "--portable", "a"]), Ok(strictly));
    assert_eq!(
        parse(&["check", "a", "b"]),
        Ok(Invocation::Check { files: vec!["a".into(), "b".into()], is_strict: false, is_portable: false })
    );
}

#[test]
fn version_and_plugins_are_told_instead_of_serving() {
    for arguments in [&["-version"][..], &["--version"], &["-V"], &["-version=true", "-quiet"]] {
        assert_eq!(parse(arguments), Ok(Invocation::Version), "{arguments:?}");
    }
    assert_eq!(parse(&["-plugins"]), Ok(Invocation::ListDirectives));
}

#[test]
fn the_watchdogs_child_is_told_apart() {
    assert!(!Flags::command().render_long_help().to_string().contains("server-child"), "nobody starts it by hand");
}

#[test]
fn teardown_wants_the_addresses_and_knows_the_default_interface() {
    let parse =
        |arguments: &[&str]| Invocation::parse(["nodelocaldns", "teardown"].iter().chain(arguments).map(Into::into));
    assert!(parse(&[]).is_err());
    let expected = |interface: &str| Invocation::Teardown {
        local_addresses: vec!["169.254.20.10".parse().unwrap(), "fd00::a".parse().unwrap()],
        interface: interface.to_owned(),
    };
    assert_eq!(parse(&["-localip", "169.254.20.10,fd00::a"]).unwrap(), expected("nodelocaldns"));
    assert_eq!(parse(&["-localip=169.254.20.10,fd00::a", "-interfacename=br0"]).unwrap(), expected("br0"));
}

#[test]
fn sleep_takes_one_time_and_no_flags() {
    assert_eq!(parse(&["sleep", "20"]), Ok(Invocation::Sleep { time: Duration::from_secs(20) }));
    assert_eq!(parse(&["sleep", "1m30s"]), Ok(Invocation::Sleep { time: Duration::from_secs(90) }));
    assert!(refused(&["sleep", "20x"]).contains("units are"), "what is possible is told");
    for wrong in
        [&["sleep"][..], &["sleep", "1", "2"], &["sleep", "1", "-quiet"], &["-localip", "127.0.0.1", "sleep", "1"]]
    {
        refused(wrong);
    }
}

#[test]
fn completions_are_for_one_shell_that_is_known() {
    assert_eq!(parse(&["completions", "fish"]), Ok(Invocation::Completions(Shell::Fish)));
    assert!(refused(&["completions"]).contains("SHELL"));
    assert!(refused(&["completions", "tcsh"]).contains("zsh"), "what is possible is told");
}

#[test]
fn what_is_misspelt_names_its_neighbour() {
    for (arguments, neighbour) in [
        (&["-confg", "x"][..], "--conf"),
        (&["--healthport", "1"], "--health-port"),
        (&["chek", "x"], "check"),
        (&["doctor", "--nmae", "x"], "--name"),
        (&["teardown", "--local-ip", "10.0.0.1"], "--localip"),
        (&["--interception", "nftable"], "nftables"),
    ] {
        let said = refused(arguments);
        assert!(said.contains("tip: ") && said.contains(&format!("'{neighbour}'")), "{arguments:?}: {said}");
    }
}

#[test]
fn the_status_page_is_served_with_names_for_this_node_unless_told_otherwise() {
    for (arguments, expected) in [
        (&[][..], StatusPage::NamesHere),
        (&["--status-page"], StatusPage::NamesHere),
        (&["--status-page=false"], StatusPage::Off),
        (&["--status-names"], StatusPage::NamesEverywhere),
        (&["--status-names=false"], StatusPage::NamesHere),
        (&["--status-page=false", "--status-names"], StatusPage::Off),
    ] {
        assert_eq!(serve(arguments).status_page, expected, "{arguments:?}");
    }
}

#[test]
fn top_asks_this_node_s_agent_unless_told_whom_to_ask() {
    let url = |host: &str, port, path: &str| StatusUrl { host: host.to_owned(), port, path: path.to_owned() };
    for (arguments, how, from) in [
        (&["top", "--from", "http://node-7"][..], TopMode::Live, url("node-7", 80, "/status.json")),
        (&["top", "--once"], TopMode::Once(OutputFormat::Text), url("127.0.0.1", 9353, "/status.json")),
        (
            &["top", "--once", "--output", "json", "--from", "http://[::1]:9999"],
            TopMode::Once(OutputFormat::Json),
            url("::1", 9999, "/status.json"),
        ),
        (
            &["top", "--once", "--from=http://node-7/x?y=1"],
            TopMode::Once(OutputFormat::Text),
            url("node-7", 80, "/x?y=1"),
        ),
        (
            &["top", "--once", "--from=http://node-7?x"],
            TopMode::Once(OutputFormat::Text),
            url("node-7", 80, "/status.json?x"),
        ),
        (
            &["top", "--once", "--from=http://node-7/?x"],
            TopMode::Once(OutputFormat::Text),
            url("node-7", 80, "/status.json?x"),
        ),
        (
            &["top", "--once", "--from=http://node-7/"],
            TopMode::Once(OutputFormat::Text),
            url("node-7", 80, "/status.json"),
        ),
    ] {
        assert_eq!(parse(arguments), Ok(Invocation::Top { how, from }), "{arguments:?}");
    }
    assert!(refused(&["top", "--output", "json"]).contains("--once"));
    for wrong in ["https://127.0.0.1:9353", "127.0.0.1:9353", "http://", "x"] {
        let said = refused(&["top", "--once", "--from", wrong]);
        assert!(said.contains(wrong) && said.contains("http://127.0.0.1:9353"), "{said}");
    }
}

fn doctor(arguments: &[&str]) -> Doctor {
    match parse(&[&["doctor"], arguments].concat()) {
        Ok(Invocation::Doctor(doctor)) => *doctor,
        other => panic!("{arguments:?}: {other:?}"),
    }
}

#[test]
fn doctor_needs_nothing_and_takes_the_agents_flags_in_either_spelling() {
    let expected = Doctor {
        local_addresses: None,
        interface: None,
        dns_port: None,
        interception: None,
        probe_mark: None,
        health_port: None,
        metrics_listen_address: None,
        name: crate::message::Name::parse("kubernetes.default.svc.cluster.local.").unwrap(),
        output: OutputFormat::Text,
    };
    assert_eq!(doctor(&[]), expected);
    let given = doctor(&[
        "-localip=169.254.20.10",
        "-interfacename",
        "dns0",
        "--dns.port=5353",
        "--interception",
        "none",
        "-health-port=8081",
        "-metrics-listen-address=:9354",
        "--name",
        "a.example",
        "--output=json",
    ]);
    assert_eq!(given.local_addresses, Some(vec!["169.254.20.10".parse().unwrap()]));
    assert_eq!(
        (given.interface.as_deref(), given.dns_port, given.interception),
        (Some("dns0"), Some(5353), Some(Backend::None))
    );
    assert_eq!(
        (given.health_port, given.name.to_string(), given.output),
        (Some(8081), "a.example.".to_owned(), OutputFormat::Json)
    );
    assert!(refused(&["doctor", "--output", "xml"]).contains("json"), "what is possible is told");
    assert!(refused(&["doctor", "--name", "a..b"]).contains("--name"));
}

#[test]
fn what_doctor_is_not_told_is_what_the_running_agent_was_told_or_its_default() {
    assert_eq!(doctor(&[]).completed(None), None, "nobody said which addresses");
    let (options, agent) = doctor(&["-localip", "fd00::10"]).completed(None).unwrap();
    assert_eq!((options.dns_port, options.metrics_listen_address), (53, Some("0.0.0.0:9353".parse().unwrap())));
    assert_eq!((agent.interface.as_deref(), agent.interception), (Some("nodelocaldns"), Backend::Auto));
    assert_eq!(agent.local_addresses, ["fd00::10".parse::<std::net::IpAddr>().unwrap()]);

    let running = || {
        Some(serve(&[
            "-localip",
            "169.254.20.10",
            "-setupinterface=false",
            "-health-port",
            "8081",
            "-dns.port",
            "5353",
        ]))
    };
    let (options, agent) = doctor(&[]).completed(running()).unwrap();
    assert_eq!((options.dns_port, agent.health_port, agent.interface.clone()), (5353, 8081, None));
    assert_eq!(agent.local_addresses, ["169.254.20.10".parse::<std::net::IpAddr>().unwrap()]);
    let (_, agent) = doctor(&["-localip", "fd00::10", "-interfacename", "dns0"]).completed(running()).unwrap();
    assert_eq!((agent.health_port, agent.interface.as_deref()), (8081, Some("dns0")));
    assert_eq!(agent.local_addresses, ["fd00::10".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn caches_are_looked_into_and_flushed_by_name_zone_or_whole() {
    let asked = |arguments: &[&str]| match parse(&[&["cache"], arguments].concat()) {
        Ok(Invocation::Cache { request, socket }) => (request, socket),
        other => panic!("{arguments:?}: {other:?}"),
    };
    let target = AdminTarget { label: None, output: OutputFormat::Text };
    assert_eq!(asked(&["stats"]), (CacheRequest::Stats, target));
    let (request, socket) =
        asked(&["list", "--filter", "*.internal", "--limit", "7", "--admin-socket", "a", "--output", "json"]);
    assert_eq!(request, CacheRequest::List { filter: Some("*.internal".to_owned()), limit: 7 });
    assert_eq!(socket, AdminTarget { label: Some("a".to_owned()), output: OutputFormat::Json });
    let get = |qtype| CacheRequest::Get { name: "a.example.".to_owned(), qtype };
    assert_eq!(asked(&["get", "a.example"]).0, get(None));
    assert_eq!(asked(&["get", "a.example", "--type", "aaaa"]).0, get(Some(28)));
    for (arguments, target) in [
        (&["flush", "all"][..], FlushTarget::All),
        (&["flush", "all."], FlushTarget::Name("all.".to_owned())),
        (&["flush", "example", "--zone"], FlushTarget::Zone("example.".to_owned())),
    ] {
        assert_eq!(asked(arguments).0, CacheRequest::Flush(target), "{arguments:?}");
    }
    for wrong in
        [&["cache"][..], &["cache", "flush"], &["cache", "flush", "a..b"], &["cache", "get", "a", "--type", "b"]]
    {
        refused(wrong);
    }
    assert_eq!(serve(&["--admin-socket", "off"]).admin_socket, AdminSocket::Off);
    assert_eq!(serve(&["-admin-socket=a"]).admin_socket, AdminSocket::Label("a".to_owned()));
    assert!(refused(&["--admin-socket", "a/b"]).contains("letters"));
}

#[test]
fn queries_are_shown_as_a_filter_says_in_one_of_three_forms() {
    let asked = |arguments: &[&str]| match parse(&[&["queries"], arguments].concat()) {
        Ok(Invocation::Queries(command)) => *command,
        other => panic!("{arguments:?}: {other:?}"),
    };
    let request = QueriesRequest { filter: FilterText::default(), limit: None, has_messages: false };
    assert_eq!(asked(&[]), WatchQueries { request, label: None, form: QueriesForm::Text });
    let all = asked(&[
        "--client",
        "10.0.0.1,fd00::/8",
        "--client=10.1.0.0/16",
        "--name",
        "*.internal",
        "--rcode",
        "nxdomain,SERVFAIL",
        "--type",
        "a",
        "--slower-than",
        "50ms",
        "--limit",
        "7",
        "--admin-socket",
        "a",
        "--output",
        "json",
    ]);
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let filter = FilterText {
        clients: texts(&["10.0.0.1", "fd00::/8", "10.1.0.0/16"]),
        name: Some("*.internal".to_owned()),
        rcodes: texts(&["nxdomain", "SERVFAIL"]),
        types: texts(&["a"]),
        slower_than_us: Some(50_000),
    };
    assert_eq!(all.request, QueriesRequest { filter, limit: Some(7), has_messages: false });
    assert_eq!((all.label.as_deref(), all.form), (Some("a"), QueriesForm::Json));
    let capture = |path: &str| (asked(&["--pcap", path]).form, asked(&["--pcap", path]).request.has_messages);
    assert_eq!(capture("-"), (QueriesForm::Capture(None), true));
    assert_eq!(capture("a/b"), (QueriesForm::Capture(Some("a/b".into())), true));
    for (wrong, said) in [
        (&["--client", "a.example"][..], "neither an IP address nor a prefix"),
        (&["--rcode", "NX"], "no response code"),
        (&["--type", "B"], "no record type"),
        (&["--slower-than", "soon"], "is not a duration"),
        (&["--limit", "0"], "--limit"),
        (&["--pcap", "-", "--output", "json"], "--pcap"),
    ] {
        let message = refused(&[&["queries"], wrong].concat());
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn a_log_level_is_asked_for_set_or_left_to_the_corefile() {
    let asked = |arguments: &[&str]| match parse(&[&["log-level"], arguments].concat()) {
        Ok(Invocation::LogLevel { request, socket }) => (request, socket),
        other => panic!("{arguments:?}: {other:?}"),
    };
    assert_eq!(asked(&[]).0, LogLevelRequest::Show);
    assert_eq!(asked(&["default"]).0, LogLevelRequest::Set(None));
    let target = AdminTarget { label: Some("a".to_owned()), output: OutputFormat::Json };
    let set = LogLevelRequest::Set(Some(Level::Warning));
    assert_eq!(asked(&["warning", "--admin-socket", "a", "--output", "json"]), (set, target));
    assert!(refused(&["log-level", "trace"]).contains("debug, info, warning, error, default"));
}

#[test]
fn the_short_help_of_each_command_fits_a_screen() {
    let mut waiting = vec![Flags::command()];
    while let Some(mut command) = waiting.pop() {
        let help = command.render_help().to_string();
        let lines = help.lines().count();
        assert!(lines <= 45, "-h of {} has {lines} lines:\n{help}", command.get_name());
        waiting.extend(command.get_subcommands().cloned());
    }
}
