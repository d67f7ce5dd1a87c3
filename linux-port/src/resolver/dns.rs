//! DNS messages (RFC 1035) and the files that belong to them, without any I/O.
//!
//! Queries for one name and one type with recursion desired; answers with their CNAME chain. No
//! EDNS, no DNSSEC, no TCP: of a truncated answer what is there is used.

use core::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use smoltcp::wire::{
    DnsFlags, DnsOpcode, DnsPacket, DnsQueryType, DnsQuestion, DnsRcode, DnsRecord, DnsRecordData,
    DnsRepr,
};

const PORT: u16 = 53;
/// Bytes of the longest name, with its length bytes (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 255;
/// CNAMEs that are followed.
const LONGEST_CHAIN: usize = 16;

/// IPv4 or IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    A,
    Aaaa,
}

impl Kind {
    fn number(self) -> DnsQueryType {
        match self {
            Kind::A => DnsQueryType::A,
            Kind::Aaaa => DnsQueryType::Aaaa,
        }
    }
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// The addresses, none if the name has none of this kind, and for how many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// There is no such name.
    NoSuchName,
    /// This server cannot or will not tell.
    Unwilling,
}

/// A name as labels with length bytes, in lower case; `None` if it cannot be one.
pub(super) fn encode(name: &str) -> Option<Vec<u8>> {
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.strip_suffix('.').unwrap_or(name).split('.') {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if label.is_empty() || label.len() > 63 || !label.bytes().all(plain) {
            return None;
        }
        wire.push(u8::try_from(label.len()).ok()?);
        wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
    }
    wire.push(0);
    (wire.len() <= LONGEST_NAME).then_some(wire)
}

/// The message that asks for addresses of a name in its wire form.
pub(super) fn query(id: u16, name: &[u8], kind: Kind) -> Vec<u8> {
    let repr = DnsRepr {
        transaction_id: id,
        opcode: DnsOpcode::Query,
        flags: DnsFlags::RECURSION_DESIRED,
        question: DnsQuestion { name, type_: kind.number() },
    };
    let mut message = vec![0; repr.buffer_len()];
    repr.emit(&mut DnsPacket::new_unchecked(message.as_mut_slice()));
    message
}

/// Takes an answer apart; `None` if it does not answer this question.
pub(super) fn reply(message: &[u8], id: u16, name: &[u8], kind: Kind) -> Option<Reply> {
    let packet = DnsPacket::new_checked(message).ok()?;
    let answers = packet.transaction_id() == id
        && packet.flags().contains(DnsFlags::RESPONSE)
        && packet.opcode() == DnsOpcode::Query
        && packet.question_count() == 1;
    let (records, question) = DnsQuestion::parse(packet.payload()).ok()?;
    let asked = canonical(&packet, question.name)? == name && question.type_ == kind.number();
    if !answers || !asked {
        return None;
    }
    match packet.rcode() {
        DnsRcode::NoError => Some(follow(&packet, records, name, kind)),
        DnsRcode::NXDomain => Some(Reply::NoSuchName),
        _ => Some(Reply::Unwilling),
    }
}

/// The addresses of `name` and of what it is an alias for.
fn follow(packet: &DnsPacket<&[u8]>, records: &[u8], name: &[u8], kind: Kind) -> Reply {
    let all = parse_records(packet, records);
    let mut owner = name.to_vec();
    let mut least = u32::MAX;
    for _ in 0..LONGEST_CHAIN {
        let mut addresses = Vec::new();
        let mut alias = None;
        for (_, ttl, data) in all.iter().filter(|(name, ..)| *name == owner) {
            match (data, kind) {
                (DnsRecordData::A(a), Kind::A) => addresses.push(IpAddr::V4(*a)),
                (DnsRecordData::Aaaa(a), Kind::Aaaa) => addresses.push(IpAddr::V6(*a)),
                (DnsRecordData::Cname(target), _) => alias = canonical(packet, target),
                _ => continue,
            }
            least = least.min(*ttl);
        }
        match alias {
            Some(target) if addresses.is_empty() => owner = target,
            _ => {
                addresses.retain(usable);
                return Reply::Addresses(addresses, least);
            }
        }
    }
    Reply::Unwilling
}

/// Owner, time to live and data of the records up to the first malformed one: a truncated
/// message ends anywhere.
fn parse_records<'a>(
    packet: &DnsPacket<&'a [u8]>,
    mut records: &'a [u8],
) -> Vec<(Vec<u8>, u32, DnsRecordData<'a>)> {
    let mut all = Vec::new();
    for _ in 0..packet.answer_record_count() {
        let Ok((rest, record)) = DnsRecord::parse(records) else { break };
        records = rest;
        if let Some(owner) = canonical(packet, record.name) {
            all.push((owner, record.ttl, record.data));
        }
    }
    all
}

/// A name of a message without pointers and in lower case.
fn canonical(packet: &DnsPacket<&[u8]>, name: &[u8]) -> Option<Vec<u8>> {
    let mut wire = Vec::new();
    for label in packet.parse_name(name) {
        let label = label.ok()?;
        wire.push(u8::try_from(label.len()).ok()?);
        wire.extend(label.iter().map(u8::to_ascii_lowercase));
        if wire.len() >= LONGEST_NAME {
            return None;
        }
    }
    wire.push(0);
    Some(wire)
}

/// Whether a peer can be there.
fn usable(address: &IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(a) if a.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !broadcast
}

/// The addresses of a name in the text of a hosts file.
pub(super) fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    });
    lines.collect()
}

/// The servers in the text of a resolv.conf; `scope` finds the index of a device.
pub(super) fn servers(text: &str, scope: impl Fn(&str) -> Option<u32>) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let word = (words.next()? == "nameserver").then(|| words.next())??;
        match word.split_once('%') {
            None => Some(SocketAddr::new(word.parse().ok()?, PORT)),
            Some((address, device)) => {
                let address: Ipv6Addr = address.parse().ok()?;
                let index = device.parse().ok().or_else(|| scope(device))?;
                Some(SocketAddrV6::new(address, PORT, 0, index).into())
            }
        }
    });
    lines.collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record with its owner in wire form (or a pointer).
    pub(crate) fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = owner.to_vec();
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(ttl.to_be_bytes());
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
        bytes
    }

    /// The answer to a query, with these records.
    pub(crate) fn answer(query: &[u8], rcode: u8, records: &[Vec<u8>]) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2] |= 0x80;
        message[3] = rcode;
        message[7] = u8::try_from(records.len()).unwrap();
        message.extend(records.concat());
        message
    }

    const TO_QUESTION: [u8; 2] = [0xc0, 12];

    fn name() -> Vec<u8> {
        encode("Vpn.Example.net.").unwrap()
    }

    #[test]
    fn a_query_is_what_rfc_1035_says() {
        let expected = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x03vpn\x07example\x03net\0\0\x01\0\x01";
        assert_eq!(query(0x1234, &name(), Kind::A), expected);
    }

    #[test]
    fn addresses_and_aliases_in_any_order() {
        let query = query(7, &name(), Kind::Aaaa);
        let alias = encode("a.example.net").unwrap();
        let address: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let records = [
            record(&alias, 28, 300, &address.octets()),
            record(&encode("other.example.net").unwrap(), 28, 5, &[1; 16]),
            record(&TO_QUESTION, 5, 90, &alias),
            record(&alias, 1, 5, &[192, 0, 2, 1]),
        ];
        let message = answer(&query, 0, &records);
        let expected = Reply::Addresses(vec![address.into()], 90);
        assert_eq!(reply(&message, 7, &name(), Kind::Aaaa), Some(expected));
    }

    #[test]
    fn what_does_not_answer_the_question_is_nothing() {
        let query = query(7, &name(), Kind::A);
        let good = answer(&query, 0, &[record(&TO_QUESTION, 1, 60, &[192, 0, 2, 1])]);
        assert!(reply(&good, 7, &name(), Kind::A).is_some());
        assert_eq!(reply(&good, 8, &name(), Kind::A), None, "id");
        assert_eq!(reply(&good, 7, &name(), Kind::Aaaa), None, "type");
        assert_eq!(reply(&good, 7, &encode("x.net").unwrap(), Kind::A), None, "name");
        assert_eq!(reply(&query, 7, &name(), Kind::A), None, "a query");
        let none = answer(&query, 3, &[]);
        assert_eq!(reply(&none, 7, &name(), Kind::A), Some(Reply::NoSuchName));
        let refused = answer(&query, 5, &[]);
        assert_eq!(reply(&refused, 7, &name(), Kind::A), Some(Reply::Unwilling));
        let odd = answer(&query, 0, &[record(&TO_QUESTION, 1, 60, &[224, 0, 0, 1])]);
        assert_eq!(reply(&odd, 7, &name(), Kind::A), Some(Reply::Addresses(vec![], 60)));
    }

    #[test]
    fn loops_end() {
        let query = query(7, &name(), Kind::A);
        let other = encode("b.net").unwrap();
        let records = [record(&name(), 5, 60, &other), record(&other, 5, 60, &name())];
        let message = answer(&query, 0, &records);
        assert_eq!(reply(&message, 7, &name(), Kind::A), Some(Reply::Unwilling));
        let at = u8::try_from(query.len()).unwrap();
        let itself = answer(&query, 0, &[record(&[0xc0, at], 1, 60, &[192, 0, 2, 1])]);
        assert_eq!(reply(&itself, 7, &name(), Kind::A), Some(Reply::Addresses(vec![], u32::MAX)));
    }

    #[test]
    fn hostile_answers_do_not_panic() {
        let query = query(7, &name(), Kind::A);
        let alias = encode("a.example.net").unwrap();
        let records = [record(&TO_QUESTION, 5, 90, &alias), record(&alias, 1, 60, &[192, 0, 2, 1])];
        let good = answer(&query, 0, &records);
        for len in 0..good.len() {
            reply(&good[..len], 7, &name(), Kind::A);
        }
        let mut state = 1_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize
        };
        let mut parsed = 0;
        for _ in 0..200_000 {
            let mut bytes = good.clone();
            for _ in 0..random() % 4 + 1 {
                let at = random() % bytes.len();
                bytes[at] = if random() % 3 == 0 { 0xc0 } else { random() as u8 };
            }
            parsed += usize::from(reply(&bytes, 7, &name(), Kind::A).is_some());
        }
        assert!(parsed > 10_000, "most mutations should get past the header: {parsed}");
    }

    #[test]
    fn names_that_are_none() {
        for name in ["", ".", "a..b", "a b", "ü.net", &"a".repeat(64), &"abc.".repeat(64)] {
            assert_eq!(encode(name), None, "{name}");
        }
    }

    #[test]
    fn files() {
        let hosts = "127.0.0.1 localhost\n192.0.2.7\tb.net B # c.net\n# 1.1.1.1 b\nfd00::7 b\n";
        let expected: Vec<IpAddr> = vec!["192.0.2.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        assert_eq!(in_hosts(hosts, "b"), expected);
        assert!(in_hosts(hosts, "c.net").is_empty());
        let conf = "# x\nsearch lan\nnameserver 192.0.2.53\nnameserver fe80::1%eth7\n\
            nameserver bad\nnameserver\n nameserver 2001:db8::53 \n";
        let found = servers(conf, |device| (device == "eth7").then_some(7));
        let found: Vec<String> = found.iter().map(SocketAddr::to_string).collect();
        assert_eq!(found, ["192.0.2.53:53", "[fe80::1%7]:53", "[2001:db8::53]:53"]);
    }
}
