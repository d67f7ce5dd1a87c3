//! What `simplevpn show` tells: readable, or as JSON. Never a key.

use core::fmt::{self, Display, Write};
use core::time::Duration;

use simplevpn_core::{Instant, Path, Traffic};
use smoltcp::wire::IpCidr;

use crate::config::model::RefusedPeer;
use crate::json::Json;

/// The state of one tunnel interface.
#[derive(Debug, Clone)]
pub struct Status {
    /// Name of the interface.
    pub interface: String,
    /// The moment of which all this is true.
    pub now: Instant,
    /// When the daemon began to serve the interface.
    pub since: Instant,
    /// The steering in use.
    pub steering: &'static str,
    /// Whether the killswitch is wanted.
    pub killswitch: bool,
    /// Why it is not in place, if it is wanted and is not.
    pub gap: Option<String>,
    /// MTU of the TUN device in bytes.
    pub mtu: u16,
    /// UDP port of UDP-encapsulated ESP.
    pub nat_port: u16,
    /// Mark on our own outer packets.
    pub fwmark: u32,
    /// Addresses of the TUN device.
    pub addresses: Vec<IpCidr>,
    /// Dropped packets by reason.
    pub drops: Vec<(&'static str, u64)>,
    /// The peers, in the order of the configuration.
    pub peers: Vec<PeerStatus>,
    /// The peers whose sections have errors.
    pub refused: Vec<RefusedPeer>,
}

/// The state of one peer.
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// The name of its section.
    pub name: String,
    /// `endpoint_host` as configured; `None` if this side only answers.
    pub endpoint_host: Option<String>,
    /// Where its packets are sent now.
    pub path: Option<Path>,
    /// How its connection is; `None` if its keys are manual.
    pub connection: Option<Connection>,
    /// Its pair of SAs; `None` without one.
    pub sas: Option<SaStatus>,
    /// The remote traffic selectors, in wire space.
    pub allowed_ips: Vec<IpCidr>,
    /// Host space minus wire space, as addresses; `None` without an offset.
    pub offset: Option<core::net::Ipv4Addr>,
    /// The same for IPv6.
    pub offset6: Option<core::net::Ipv6Addr>,
    /// Largest inner packet for the path, in bytes.
    pub mtu: Option<u16>,
    /// Seconds between keepalives.
    pub persistent_keepalive: Option<u16>,
    /// Inner packets received.
    pub received: Traffic,
    /// Inner packets sent.
    pub sent: Traffic,
}

/// A connection whose keys are negotiated (IKEv2).
#[derive(Debug, Clone)]
pub struct Connection {
    /// How far it is.
    pub state: State,
    /// Since when; `None` if it never was up.
    pub since: Option<Instant>,
    /// Why there are no SAs, or were none before, in one sentence.
    pub reason: Option<String>,
    /// When the peer is called again.
    pub next_call: Option<Instant>,
    /// When the keys are replaced.
    pub rekey: Option<Instant>,
    /// When the peer was last heard of, by packets or IKE.
    pub last_heard: Option<Instant>,
    /// The algorithms of IKE: a cipher, and how keys were exchanged.
    pub suite: Option<(&'static str, &'static str)>,
    /// What else is to be said, in a few words each.
    pub remarks: Vec<&'static str>,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is none.
    Down,
    /// Both ends are finding out who they are.
    Negotiating,
    /// Packets can pass, unless there is a reason why not.
    Up,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Down => "down",
            State::Negotiating => "negotiating",
            State::Up => "up",
        }
    }
}

/// The pair of SAs in use with a peer.
#[derive(Debug, Clone)]
pub struct SaStatus {
    /// The AEAD.
    pub cipher: &'static str,
    /// Extended sequence numbers.
    pub esn: bool,
    /// SPI of what we receive.
    pub spi_in: u32,
    /// SPI of what we send.
    pub spi_out: u32,
}

/// A path's way through the network: `esp` or `udp`.
fn encapsulation(path: &Path) -> &'static str {
    match path {
        Path::Esp { .. } => "esp",
        Path::Udp { .. } => "udp",
    }
}

/// The far end of a path, with its port if it has one.
fn far_end(path: &Path) -> String {
    match path {
        Path::Esp { remote, .. } => remote.to_string(),
        Path::Udp { remote, .. } => remote.to_string(),
    }
}

impl Status {
    /// The status as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = Json::default();
        json.object(|json| {
            json.name("interface").string(&self.interface);
            json.name("uptime").number(self.now.saturating_since(self.since).as_secs());
            json.name("steering").string(self.steering);
            json.name("killswitch").boolean(self.killswitch && self.gap.is_none());
            json.name("killswitch_gap").string_or_null(self.gap.as_ref());
            json.name("mtu").number(self.mtu);
            json.name("nat_port").number(self.nat_port);
            json.name("fwmark").number(self.fwmark);
            json.name("addresses").strings(&self.addresses);
            json.name("drops").counters(&self.drops);
            json.name("peers").array(|json| {
                for peer in &self.peers {
                    json.object(|json| peer.members(json, self.now));
                }
            });
            json.name("refused").array(|json| {
                for peer in &self.refused {
                    json.object(|json| {
                        json.name("name").string(&peer.label);
                        json.name("errors").strings(&peer.reasons());
                        json.name("allowed_ips").strings(&peer.prefixes);
                    });
                }
            });
        });
        json.finish()
    }
}

impl PeerStatus {
    fn members(&self, json: &mut Json, now: Instant) {
        json.name("name").string(&self.name);
        json.name("endpoint_host").string_or_null(self.endpoint_host.as_ref());
        json.name("endpoint").string_or_null(self.path.as_ref().map(far_end));
        json.name("encapsulation").string_or_null(self.path.as_ref().map(encapsulation));
        if let Some(connection) = &self.connection {
            connection.members(json, now);
        }
        let sas = self.sas.as_ref();
        json.name("cipher").string_or_null(sas.map(|sas| sas.cipher));
        match sas {
            Some(sas) => json.name("esn").boolean(sas.esn),
            None => json.name("esn").null(),
        }
        json.name("spi_in").number_or_null(sas.map(|sas| sas.spi_in));
        json.name("spi_out").number_or_null(sas.map(|sas| sas.spi_out));
        json.name("allowed_ips").strings(&self.allowed_ips);
        json.name("offset").string_or_null(self.offset);
        json.name("offset6").string_or_null(self.offset6);
        json.name("mtu").number_or_null(self.mtu);
        json.name("persistent_keepalive").number_or_null(self.persistent_keepalive);
        for (name, traffic) in [("received", &self.received), ("sent", &self.sent)] {
            json.name(name).object(|json| {
                json.name("packets").number(traffic.packets);
                json.name("bytes").number(traffic.bytes);
                let ago = traffic.last.map(|last| now.saturating_since(last).as_secs());
                json.name("seconds_ago").number_or_null(ago);
            });
        }
    }
}

impl Connection {
    fn members(&self, json: &mut Json, now: Instant) {
        let until = |at: Option<Instant>| at.map(|at| at.saturating_since(now).as_secs());
        let ago = |at: Option<Instant>| at.map(|at| now.saturating_since(at).as_secs());
        json.name("state").string(self.state.name());
        json.name("state_seconds").number_or_null(ago(self.since));
        json.name("reason").string_or_null(self.reason.as_ref());
        json.name("next_call_in").number_or_null(until(self.next_call));
        json.name("rekey_in").number_or_null(until(self.rekey));
        json.name("heard_seconds_ago").number_or_null(ago(self.last_heard));
        json.name("ike_cipher").string_or_null(self.suite.map(|(cipher, _)| cipher));
        json.name("ike_group").string_or_null(self.suite.map(|(_, group)| group));
        json.name("remarks").strings(&self.remarks);
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, now: Instant) -> fmt::Result {
        write!(f, "  state: {}", self.state.name())?;
        if let Some(since) = self.since {
            write!(f, " for {}", Span(now.saturating_since(since)))?;
        }
        if let Some(reason) = &self.reason {
            let before = match self.state {
                State::Down => ": ",
                State::Negotiating => "; before: ",
                State::Up => ", without SAs: ",
            };
            write!(f, "{before}{}", Printable(reason))?;
        }
        if let Some(rekey) = self.rekey {
            write!(f, "; new keys in {}", Span(rekey.saturating_since(now)))?;
        }
        if let Some(next) = self.next_call {
            let what = if self.state == State::Up { "asked for" } else { "called" };
            write!(f, "; {what} again in {}", Span(next.saturating_since(now)))?;
        }
        writeln!(f)?;
        if let Some((cipher, group)) = self.suite {
            write!(f, "  ike: {cipher}, {group}")?;
            self.remarks.iter().try_for_each(|remark| write!(f, ", {remark}"))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Json {
    fn strings(&mut self, values: &[impl Display]) {
        self.array(|json| values.iter().for_each(|value| json.string(value)));
    }

    fn string_or_null(&mut self, value: Option<impl Display>) {
        match value {
            Some(value) => self.string(value),
            None => self.null(),
        }
    }

    fn number_or_null(&mut self, value: Option<impl Into<u64>>) {
        match value {
            Some(value) => self.number(value),
            None => self.null(),
        }
    }

    fn counters(&mut self, counters: &[(&'static str, u64)]) {
        self.object(|json| {
            for &(name, count) in counters.iter().filter(|(_, count)| *count != 0) {
                json.name(name).number(count);
            }
        });
    }
}

/// One JSON array of what several daemons answered, each one JSON value.
#[must_use]
pub fn join_json(answers: &[String]) -> String {
    format!("[{}]\n", answers.iter().map(|answer| answer.trim_end()).collect::<Vec<_>>().join(","))
}

impl Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "interface: {}", Printable(&self.interface))?;
        writeln!(f, "  up: {}", Span(self.now.saturating_since(self.since)))?;
        write!(f, "  steering: {}", self.steering)?;
        match &self.gap {
            Some(gap) => writeln!(f, ", killswitch not in place: {}", Printable(gap))?,
            None if self.killswitch => writeln!(f, ", killswitch on")?,
            None => writeln!(f)?,
        }
        writeln!(f, "  mtu: {}", self.mtu)?;
        writeln!(f, "  udp port: {}", self.nat_port)?;
        writeln!(f, "  fwmark: {:#x}", self.fwmark)?;
        list(f, "addresses", &self.addresses)?;
        drops(f, &self.drops)?;
        self.peers.iter().try_for_each(|peer| peer.write(f, self.now))?;
        for peer in &self.refused {
            writeln!(f, "\npeer: {}", Printable(&peer.label))?;
            for error in peer.reasons() {
                writeln!(f, "  state: refused: {}", Printable(&error.to_string()))?;
            }
            list(f, "closed", &peer.prefixes)?;
        }
        Ok(())
    }
}

impl PeerStatus {
    fn write(&self, f: &mut fmt::Formatter<'_>, now: Instant) -> fmt::Result {
        writeln!(f, "\npeer: {}", Printable(&self.name))?;
        match (&self.path, &self.endpoint_host) {
            (Some(path), _) => {
                writeln!(f, "  endpoint: {} ({})", far_end(path), encapsulation(path))?;
            }
            (None, Some(host)) if self.connection.is_some() => {
                writeln!(f, "  endpoint: {} (not connected)", Printable(host))?;
            }
            (None, Some(host)) => {
                writeln!(f, "  endpoint: {} (no address known yet)", Printable(host))?;
            }
            (None, None) => writeln!(f, "  endpoint: (not heard of yet)")?,
        }
        if let Some(connection) = &self.connection {
            connection.write(f, now)?;
        }
        if let Some(sas) = &self.sas {
            let esn = if sas.esn { ", extended sequence numbers" } else { "" };
            writeln!(f, "  cipher: {}{esn}", sas.cipher)?;
            writeln!(f, "  spi: {:#x} in, {:#x} out", sas.spi_in, sas.spi_out)?;
        }
        list(f, "allowed ips", &self.allowed_ips)?;
        if let Some(offset) = self.offset {
            writeln!(f, "  offset: {offset}")?;
        }
        if let Some(offset) = self.offset6 {
            writeln!(f, "  offset6: {offset}")?;
        }
        if let Some(mtu) = self.mtu {
            writeln!(f, "  mtu: {mtu}")?;
        }
        let heard = self.connection.as_ref().and_then(|connection| connection.last_heard);
        if let Some(last) = heard.max(self.received.last) {
            writeln!(f, "  last heard: {}", Ago(now.saturating_since(last)))?;
        }
        if self.received.packets != 0 || self.sent.packets != 0 {
            let (received, sent) = (Size(self.received.bytes), Size(self.sent.bytes));
            writeln!(f, "  transfer: {received} received, {sent} sent")?;
        }
        if let Some(seconds) = self.persistent_keepalive {
            let every = Span(Duration::from_secs(seconds.into()));
            writeln!(f, "  persistent keepalive: every {every}")?;
        }
        Ok(())
    }
}

fn list(f: &mut fmt::Formatter<'_>, name: &str, values: &[impl Display]) -> fmt::Result {
    write!(f, "  {name}: ")?;
    if values.is_empty() {
        f.write_str("(none)")?;
    }
    for (at, value) in values.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        write!(f, "{comma}{value}")?;
    }
    writeln!(f)
}

fn drops(f: &mut fmt::Formatter<'_>, counters: &[(&'static str, u64)]) -> fmt::Result {
    let mut comma = "  dropped: ";
    for (name, count) in counters.iter().filter(|(_, count)| *count != 0) {
        write!(f, "{comma}{count} {name}")?;
        comma = ", ";
    }
    if comma == ", " { writeln!(f) } else { Ok(()) }
}

/// Text without what a terminal would obey.
struct Printable<'a>(&'a str);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| f.write_char(if char.is_control() { '?' } else { char }))
    }
}

/// Bytes as people read them: `1.25 MiB`.
struct Size(u64);

impl Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        // In integers: a soft-float router need not learn to divide for this.
        let mut unit = 0;
        while unit + 1 < UNITS.len() && self.0 >> (10 * (unit + 2)) != 0 {
            unit += 1;
        }
        let shift = 10 * (unit + 1);
        let fraction = ((self.0 >> (shift - 10)) & 0x3ff) * 100 / 1024;
        write!(f, "{}.{fraction:02} {}", self.0 >> shift, UNITS.get(unit).unwrap_or(&""))
    }
}

/// How long: the two largest units that are not zero.
struct Span(Duration);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [
            (seconds / 86_400, "day"),
            (seconds / 3600 % 24, "hour"),
            (seconds / 60 % 60, "minute"),
            (seconds % 60, "second"),
        ];
        let first = units.iter().position(|&(count, _)| count != 0).unwrap_or(units.len() - 1);
        for (at, (count, unit)) in units.iter().skip(first).take(2).enumerate() {
            if at == 0 || *count != 0 {
                let comma = if at == 0 { "" } else { ", " };
                write!(f, "{comma}{count} {unit}{}", if *count == 1 { "" } else { "s" })?;
            }
        }
        Ok(())
    }
}

/// How long ago.
struct Ago(Duration);

impl Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0 => f.write_str("now"),
            _ => write!(f, "{} ago", Span(self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::{Ipv4Address, Ipv4Cidr};

    fn cidr(d: u8, len: u8) -> IpCidr {
        IpCidr::Ipv4(Ipv4Cidr::new(Ipv4Address::new(10, 77, 0, d), len))
    }

    fn status() -> Status {
        let seconds = |seconds: u64| Instant::from_millis(seconds * 1000);
        let traffic = |bytes, last| Traffic { packets: 7, bytes, last: Some(seconds(last)) };
        let office = PeerStatus {
            name: "office".into(),
            endpoint_host: Some("vpn.example.net".into()),
            path: Some(Path::Udp {
                local: "0.0.0.0:4500".parse().unwrap(),
                remote: "192.0.2.1:4500".parse().unwrap(),
            }),
            connection: None,
            sas: Some(SaStatus {
                cipher: "chacha20poly1305",
                esn: true,
                spi_in: 0x1001,
                spi_out: 0x2001,
            }),
            allowed_ips: vec![cidr(0, 24), cidr(128, 25)],
            offset: Some([0, 0, 100, 0].into()),
            offset6: None,
            mtu: Some(1438),
            persistent_keepalive: Some(25),
            received: traffic(1_258_292, 88),
            sent: traffic(900, 99),
        };
        let silent = PeerStatus {
            name: "si\u{1b}lent\"".into(),
            endpoint_host: None,
            path: None,
            offset: None,
            mtu: None,
            persistent_keepalive: None,
            received: Traffic::default(),
            sent: Traffic::default(),
            ..office.clone()
        };
        Status {
            interface: "vpn0".into(),
            now: seconds(100),
            since: seconds(39),
            steering: "policy",
            killswitch: true,
            gap: None,
            mtu: 1438,
            nat_port: 4500,
            fwmark: 0x5356,
            addresses: vec![cidr(2, 24)],
            drops: vec![("no_policy", 3), ("unknown_spi", 1), ("replayed", 0)],
            peers: vec![office, silent],
            refused: Vec::new(),
        }
    }

    #[test]
    fn readable_text() {
        let wanted = "\
interface: vpn0
  up: 1 minute, 1 second
  steering: policy, killswitch on
  mtu: 1438
  udp port: 4500
  fwmark: 0x5356
  addresses: 10.77.0.2/24
  dropped: 3 no_policy, 1 unknown_spi

peer: office
  endpoint: 192.0.2.1:4500 (udp)
  cipher: chacha20poly1305, extended sequence numbers
  spi: 0x1001 in, 0x2001 out
  allowed ips: 10.77.0.0/24, 10.77.0.128/25
  offset: 0.0.100.0
  mtu: 1438
  last heard: 12 seconds ago
  transfer: 1.19 MiB received, 900 B sent
  persistent keepalive: every 25 seconds

peer: si?lent?
  endpoint: (not heard of yet)
  cipher: chacha20poly1305, extended sequence numbers
  spi: 0x1001 in, 0x2001 out
  allowed ips: 10.77.0.0/24, 10.77.0.128/25
";
        let wanted = wanted.replace("si?lent?", "si?lent\"");
        assert_eq!(status().to_string(), wanted);
    }

    #[test]
    fn connections_in_words() {
        let seconds = |seconds: u64| Some(Instant::from_millis(seconds * 1000));
        let up = Connection {
            state: State::Up,
            since: seconds(39),
            reason: None,
            next_call: None,
            rekey: seconds(160),
            last_heard: seconds(95),
            suite: Some(("aes256gcm16", "x25519")),
            remarks: vec!["we called", "NAT here"],
        };
        let reason = Some("no answer".to_owned());
        let down = Connection {
            state: State::Down,
            since: None,
            reason: reason.clone(),
            next_call: seconds(104),
            rekey: None,
            suite: None,
            ..up.clone()
        };
        let again = Connection { state: State::Negotiating, since: seconds(98), ..down.clone() };
        let again = Connection { next_call: None, ..again };
        for (connection, wanted) in [
            (
                &up,
                "  state: up for 1 minute, 1 second; new keys in 1 minute\n  \
                 ike: aes256gcm16, x25519, we called, NAT here\n",
            ),
            (&down, "  state: down: no answer; called again in 4 seconds\n"),
            (&again, "  state: negotiating for 2 seconds; before: no answer\n"),
        ] {
            let mut status = status();
            status.peers[0].connection = Some(connection.clone());
            let text = status.to_string();
            assert!(text.contains(wanted), "{text}");
        }
        let mut status = status();
        status.peers[0].connection = Some(down);
        let wanted = "\"state\":\"down\",\"state_seconds\":null,\"reason\":\"no answer\",\
                      \"next_call_in\":4,\"rekey_in\":null,\"heard_seconds_ago\":5,";
        assert!(status.to_json().contains(wanted), "{}", status.to_json());
    }

    #[test]
    fn json() {
        let json = status().to_json();
        let wanted = r#"{"interface":"vpn0","uptime":61,"steering":"policy","killswitch":true,"killswitch_gap":null,"mtu":1438,"nat_port":4500,"fwmark":21334,"addresses":["10.77.0.2/24"],"drops":{"no_policy":3,"unknown_spi":1},"peers":[{"name":"office","endpoint_host":"vpn.example.net","endpoint":"192.0.2.1:4500","encapsulation":"udp","cipher":"chacha20poly1305","esn":true,"spi_in":4097,"spi_out":8193,"allowed_ips":["10.77.0.0/24","10.77.0.128/25"],"offset":"0.0.100.0","offset6":null,"mtu":1438,"persistent_keepalive":25,"received":{"packets":7,"bytes":1258292,"seconds_ago":12},"sent":{"packets":7,"bytes":900,"seconds_ago":1}},{"name":"si\u001blent\"","#;
        assert!(json.starts_with(wanted), "{json}");
        assert_eq!(join_json(&["{}\n".into(), "{\"a\":1}".into()]), "[{},{\"a\":1}]\n");
        assert_eq!(join_json(&[]), "[]\n");
    }

    #[test]
    fn sizes() {
        let sizes = [0, 1023, 1024, 1536, 1 << 20, (1 << 30) - 1, u64::MAX];
        let texts = sizes.map(|size| Size(size).to_string());
        let wanted =
            ["0 B", "1023 B", "1.00 KiB", "1.50 KiB", "1.00 MiB", "1023.99 MiB", "15.99 EiB"];
        assert_eq!(texts, wanted);
    }

    #[test]
    fn spans() {
        let spans = [0, 1, 60, 3599, 3600, 3661, 86_400, 200_000];
        let texts = spans.map(|seconds| Span(Duration::from_secs(seconds)).to_string());
        let wanted = [
            "0 seconds",
            "1 second",
            "1 minute",
            "59 minutes, 59 seconds",
            "1 hour",
            "1 hour, 1 minute",
            "1 day",
            "2 days, 7 hours",
        ];
        assert_eq!(texts, wanted);
    }
}
