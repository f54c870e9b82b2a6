# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_nodelocaldns_global_optspecs
    string join \n conf= corefile= p/dns.port= pidfile= quiet= log-format= plugins= V/version= metrics-listen-address= status-page= status-names= admin-socket= workers= cache-memory= handover= localip= setupinterface= interfacename= setupiptables= interception= syncinterval= probe-mark= fallback= fallback-mark= health-port= skipteardown= basecorefile= kubednscm= upstreamsvc= prometheus-listen-address= reloadwithsignal= h/help
end

function __fish_nodelocaldns_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_nodelocaldns_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_nodelocaldns_using_subcommand
    set -l cmd (__fish_nodelocaldns_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l conf -d 'Corefile to serve; `stdin` reads it from standard input. Without it the built-in Corefile is served. With -localip: where the rendered Corefile is written [default: /etc/Corefile]' -r -F
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l corefile -d 'Same as -conf, which wins when both are given' -r -F
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -s p -l dns.port -d 'Port of server blocks that name none [default: 53]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l pidfile -d 'File to write the process ID to' -r -F
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l quiet -d 'Do not print where it listens' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l log-format -d 'How log lines are written [default: text]' -r -f -a "text\t'As node-cache has them'
json\t'One JSON object a line, with time, level and message'"
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l plugins -d 'List the directives a Corefile may hold, and exit' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -s V -l version -d 'Print the version, and exit' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l metrics-listen-address -d 'Address to serve all metrics on, whatever the Corefile says [default with -localip: 0.0.0.0:9353]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l status-page -d 'Serve a page at / and /status.json where the metrics are: who asks for what, what fails and what is slow [default: true]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l status-names -d 'Show names and clients on it to everybody, not only to who asks from this node [default: false]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l admin-socket -d 'What the admin socket is called, at which `nodelocaldns cache`, `explain`, `queries` and `log-level` ask, or `off` for none [default: the first address of -localip]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l workers -d 'Worker threads; by default one for each processor this process may use' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l cache-memory -d 'Memory that all caches together may take, such as 64MiB; by default a quarter of the cgroup\'s limit, at most 256MiB' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l handover -d 'Socket in a folder that both see, at which a new instance takes over the old one\'s sockets and cache' -r -F
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l localip -d 'Comma-separated addresses of the cache on this node, IPv4 and IPv6. Makes it the node\'s agent, which the flags below are about' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l setupinterface -d 'Create the network interface, or adopt it, and give it the addresses [default: true]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l interfacename -d 'Name of the interface [default: nodelocaldns]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l setupiptables -d 'Install the rules that intercept queries [default: true]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l interception -d 'What the rules are made with [default: auto]' -r -f -a "auto\t'nftables where the kernel has what it takes, else iptables'
nftables\t''
iptables\t''
none\t'no rules, as -setupiptables=false'"
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l syncinterval -d 'How often interface and rules are checked: seconds, or a duration such as 1m [default: 60]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l probe-mark -d 'Packet mark of the watchdog\'s own queries [default: 0x00100000]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l fallback -d 'Who answers at an address of this node alone when this program is gone: auto (the upstream service), none, or addresses of cluster DNS that are not served here, one of each family [default: auto]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l fallback-mark -d 'One bit of packet and connection marks for queries that go to the fallback [default: 0x1000]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l health-port -d 'Port of the directive health, which the rules let through [default: 8080]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l skipteardown -d 'Leave interface and rules in place on exit [default: false]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l basecorefile -d 'Template of the Corefile [default: /etc/coredns/Corefile.base]' -r -F
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l kubednscm -d 'Folder the kube-dns ConfigMap is mounted on [default: /etc/kube-dns, if it is there]' -r -F
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l upstreamsvc -d 'Service of cluster DNS; its address, from the environment, replaces __PILLAR__CLUSTER__DNS__ [default: kube-dns]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l prometheus-listen-address -d 'Replaces __PROMETHEUS__ENDPOINT__ [default: :9253]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -l reloadwithsignal -d 'Accepted for node-cache\'s sake: a newly rendered Corefile is always loaded at once' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -f -a "check" -d 'Read Corefiles and report everything wrong with them, without serving'
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -f -a "fmt" -d 'Lay Corefiles out, and print the result'
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -f -a "render" -d 'Print the Corefile that an agent with these flags serves'
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -f -a "teardown" -d 'Remove from this node what an agent has left, of ours or node-cache\'s'
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -f -a "sleep" -d 'Wait, for a preStop hook: an image of ours has no shell that could'
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -f -a "doctor" -d 'Say whether this node\'s queries are really intercepted, and what to do if not'
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -f -a "completions" -d 'Print a script that has a shell complete command lines'
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -f -a "cache" -d 'Look into the caches of the server that runs here, or let answers go'
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -f -a "log-level" -d 'Print how much the server that runs here logs, or have it log more or less'
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -f -a "queries" -d 'Show what the server that runs here is asked, query by query, as it is answered'
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -f -a "explain" -d 'Say what the server that runs here would do with a question, and why'
complete -c nodelocaldns -n "__fish_nodelocaldns_needs_command" -f -a "top" -d 'Show what the node\'s agent is asked, in the terminal'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand check" -l strict -d 'Warnings are errors'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand check" -l portable -d 'Warn of what node-cache does not take, for the day that you go back to it'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand fmt" -l write -d 'Write the result to the file instead'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand fmt" -l check -d 'Name the files that are laid out otherwise, and change none. Exit status 1 if there are any'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand fmt" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand render" -l localip -d 'Comma-separated addresses of the cache on this node' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand render" -s p -l dns.port -d 'Port of stub domains, and of server blocks that name none [default: 53]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand render" -l basecorefile -d 'Template of the Corefile [default: /etc/coredns/Corefile.base]' -r -F
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand render" -l kubednscm -d 'Folder the kube-dns ConfigMap is mounted on [default: /etc/kube-dns, if it is there]' -r -F
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand render" -l upstreamsvc -d 'Service of cluster DNS; its address, from the environment, replaces __PILLAR__CLUSTER__DNS__ [default: kube-dns]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand render" -l prometheus-listen-address -d 'Replaces __PROMETHEUS__ENDPOINT__ [default: :9253]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand render" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand teardown" -l localip -d 'Comma-separated addresses of the cache on this node, as the agent was given them' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand teardown" -l interfacename -d 'Interface that carries the addresses [default: nodelocaldns]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand teardown" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand sleep" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand doctor" -l localip -d 'Comma-separated addresses of the cache on this node' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand doctor" -l interfacename -d 'Interface that carries the addresses' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand doctor" -s p -l dns.port -d 'DNS port' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand doctor" -l interception -d 'What the rules are made with' -r -f -a "auto\t'nftables where the kernel has what it takes, else iptables'
nftables\t''
iptables\t''
none\t'no rules, as -setupiptables=false'"
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand doctor" -l probe-mark -d 'Packet mark of the watchdog\'s own queries' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand doctor" -l health-port -d 'Port of the directive health' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand doctor" -l metrics-listen-address -d 'Where the agent serves its metrics' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand doctor" -l name -d 'An ordinary name to ask for, beside the question that only our server can answer' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand doctor" -l output -d 'How to print; src/doctor/README.md has the fields of json' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and not __fish_seen_subcommand_from stats list get flush" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and not __fish_seen_subcommand_from stats list get flush" -f -a "stats" -d 'Print how many answers each cache holds, how many it may, and what they take'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and not __fish_seen_subcommand_from stats list get flush" -f -a "list" -d 'Print the answers that are kept: what for, how long they live, what they take'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and not __fish_seen_subcommand_from stats list get flush" -f -a "get" -d 'Print the answers that are kept for a name, with their records. Exit status 1 if there are none'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and not __fish_seen_subcommand_from stats list get flush" -f -a "flush" -d 'Let answers go, in all caches: the next query for one asks upstream. Is logged, and counted in nodelocaldns_cache_flushes_total'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and __fish_seen_subcommand_from stats" -l admin-socket -d 'What the server\'s admin socket is called, where there are several' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and __fish_seen_subcommand_from stats" -l output -d 'How to print' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and __fish_seen_subcommand_from stats" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and __fish_seen_subcommand_from list" -l filter -d 'Only for names like this: `*` stands for any octets, `?` for one, such as \'*.internal\'' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and __fish_seen_subcommand_from list" -l limit -d 'No more of them than this, 10000 at most' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and __fish_seen_subcommand_from list" -l admin-socket -d 'What the server\'s admin socket is called, where there are several' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and __fish_seen_subcommand_from list" -l output -d 'How to print' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and __fish_seen_subcommand_from get" -l type -d 'Only those of this type, such as AAAA' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and __fish_seen_subcommand_from get" -l admin-socket -d 'What the server\'s admin socket is called, where there are several' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and __fish_seen_subcommand_from get" -l output -d 'How to print' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and __fish_seen_subcommand_from get" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and __fish_seen_subcommand_from flush" -l admin-socket -d 'What the server\'s admin socket is called, where there are several' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and __fish_seen_subcommand_from flush" -l output -d 'How to print' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and __fish_seen_subcommand_from flush" -l zone -d 'Those of all names below it too'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand cache; and __fish_seen_subcommand_from flush" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand log-level" -l admin-socket -d 'What the server\'s admin socket is called, where there are several' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand log-level" -l output -d 'How to print' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand log-level" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand queries" -l client -d 'Only those of these clients: addresses or prefixes, such as 10.244.1.7 or 10.244.0.0/16' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand queries" -l name -d 'Only for names like this: `*` stands for any octets, `?` for one, such as \'*.internal\'' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand queries" -l rcode -d 'Only those answered with these codes, such as NXDOMAIN,SERVFAIL' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand queries" -l type -d 'Only those for these types, such as AAAA' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand queries" -l slower-than -d 'Only those that took longer: seconds, or a duration such as 50ms' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand queries" -l limit -d 'End after so many' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand queries" -l output -d 'How to print; docs/queries.md has the fields of json' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand queries" -l pcap -d 'Write queries and replies as packets instead, for Wireshark and tcpdump, to a file or, with `-`, to standard output' -r -F
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand queries" -l admin-socket -d 'What the server\'s admin socket is called, where there are several' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand queries" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand explain" -l type -d 'The type that is asked for, such as AAAA' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand explain" -l client -d 'Who asks, such as a pod\'s address [default: this machine]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand explain" -l server -d 'Which listen address is asked [default: the first that has a server block for the name]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand explain" -l conf -d 'Look at this Corefile instead of a server: as if it had just begun to serve, with empty caches' -r -F
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand explain" -s p -l dns.port -d 'Port of its server blocks that name none [default: 53]' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand explain" -l admin-socket -d 'What the server\'s admin socket is called, where there are several' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand explain" -l output -d 'How to print' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand explain" -l ask -d 'Ask for real too, as this machine, and show where the time goes. The query is counted and logged as any other'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand top" -l output -d 'How to print; docs/status.md has the fields of json' -r -f -a "text\t'For people'
json\t'For programs'"
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand top" -l from -d 'Where the agent serves it, such as through a port-forward' -r
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand top" -l once -d 'Print it once, and exit'
complete -c nodelocaldns -n "__fish_nodelocaldns_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
