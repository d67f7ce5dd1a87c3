//! Labs: the daemon on real packets, in network namespaces. Each opens with its topology.

mod kernel_peer;
mod machinery;
mod peers;
mod scapy_peer;
