//! Sockets: UDP and TCP from clients, HTTP for scrapes and probes; draining and the swap of plans. Holds no decisions.
