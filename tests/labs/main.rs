//! Labs: the daemon on real packets, in network namespaces. Each opens with its topology.

mod machinery;
