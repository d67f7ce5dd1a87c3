//! Labs: the daemon on real packets, in network namespaces. Each opens with its topology.

#![allow(clippy::unwrap_used, reason = "a lab that fails says so by panicking")]

mod bridge;
mod fail_closed;
mod full_queue;
mod full_tunnel;
mod gateways;
mod guard;
mod ike;
mod ike_elsewhere;
mod ike_kernel;
mod ike_life;
mod ike_nat;
mod ike_one_family;
mod ike_one_way;
mod ike_ours;
mod ike_page;
mod ike_paths;
mod ike_prefixes;
mod ike_rekey;
mod ike_router;
mod ike_strangers;
mod ike_strongswan;
mod kernel_peer;
mod killswitch;
mod life;
mod longest_prefix;
mod machinery;
mod mtu;
mod nat;
mod netifd;
mod offload;
mod overlap;
mod peers;
mod refused;
mod reload;
mod router;
mod same_subnet;
mod scale;
mod scapy_peer;
mod sites;
mod topology;
mod uplink;
