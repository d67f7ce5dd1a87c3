//! What OpenWrt's netifd is told about an interface whose daemon it has started.
//!
//! `ubus call network.interface.IFACE notify_proto MESSAGE`, with the messages of netifd's protocol
//! handlers: action 0 makes the interface up with these addresses and routes, action 3 is an error
//! that `ifstatus` shows. Of errors netifd keeps the last, and forgets it when an interface comes up;
//! so which peers are refused is told afterwards, and in the interface's data as well, where it is
//! gone once they are right. The `ubus` program is run beside the event loop, which never waits for it;
//! what fails is tried again.
//!
//! A message always tells everything. netifd's `keep` would make it add to what it was told before
//! and remove nothing, so it is false: what is the same stays untouched all the same. DNS servers,
//! metric and tables of the interface section are netifd's own business.

use core::net::IpAddr;
use core::time::Duration;
use std::io;

use simplevpn_core::Instant;
use smoltcp::wire::IpCidr;

use crate::clock;
use crate::json::Json;
use crate::netlink::Family;
use crate::program::Program;

/// How long `ubus` may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take for the last words of a daemon that ends.
const LAST_PATIENCE: Duration = Duration::from_secs(1);
/// How often a running `ubus` is looked after.
const POLL: Duration = Duration::from_millis(20);
/// The longest pause after failures; the first is a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A route into the TUN device, with its preferred source.
pub(crate) type Route = (IpCidr, Option<IpAddr>);

/// The message that makes an interface up.
pub(crate) fn up(
    device: &str,
    addresses: &[IpCidr],
    routes: &[Route],
    name_servers: &[IpAddr],
    zone: Option<&str>,
    refused: Option<&[String]>,
) -> String {
    let mut json = Json::default();
    json.object(|json| {
        json.name("action").number(0u32);
        json.name("ifname").string(device);
        json.name("link-up").boolean(true);
        json.name("address-external").boolean(false);
        json.name("keep").boolean(false);
        for (family, name) in [(Family::V4, "ipaddr"), (Family::V6, "ip6addr")] {
            let of_family: Vec<_> = addresses.iter().filter(|a| Family::of(a) == family).collect();
            if !of_family.is_empty() {
                json.name(name).array(|json| of_family.iter().for_each(|a| json.address(a)));
            }
        }
        for (family, name) in [(Family::V4, "routes"), (Family::V6, "routes6")] {
            let of_family: Vec<_> =
                routes.iter().filter(|(to, _)| Family::of(to) == family).collect();
            if !of_family.is_empty() {
                json.name(name).array(|json| of_family.iter().for_each(|route| json.route(route)));
            }
        }
        if !name_servers.is_empty() {
            json.name("dns").array(|json| name_servers.iter().for_each(|ip| json.string(ip)));
        }
        if zone.is_some() || refused.is_some() {
            json.name("data").object(|json| {
                if let Some(zone) = zone {
                    json.name("zone").string(zone);
                }
                if let Some(refused) = refused {
                    json.name("refused")
                        .array(|json| refused.iter().for_each(|why| json.string(why)));
                }
            });
        }
    });
    json.finish()
}

impl Json {
    fn address(&mut self, address: &IpCidr) {
        self.object(|json| {
            json.name("ipaddr").string(address.address());
            json.name("mask").string(address.prefix_len());
        });
    }

    fn route(&mut self, (to, source): &Route) {
        self.object(|json| {
            json.name("target").string(to.address());
            json.name("netmask").string(to.prefix_len());
            // To netifd an IPv6 source is a condition, not a preference.
            if let Some(source @ IpAddr::V4(_)) = source {
                json.name("source").string(source);
            }
        });
    }
}

/// The message that tells an error.
fn error(reason: &str) -> String {
    let mut json = Json::default();
    json.object(|json| {
        json.name("action").number(3u32);
        json.name("error").array(|json| json.string(reason));
    });
    json.finish()
}

/// Tells netifd why the daemon of `interface` ends.
pub(crate) fn report(interface: &str, reason: &str) {
    let result = Call::start(interface, error(reason), clock::now(), LAST_PATIENCE);
    let ended = result.and_then(|mut call| {
        loop {
            if let Some(ended) = call.poll(clock::now()) {
                return ended;
            }
            std::thread::sleep(POLL);
        }
    });
    if let Err(why) = ended {
        log::warn!("{interface}: cannot tell netifd: {why}");
    }
}

/// Keeps netifd informed about one interface.
pub(crate) struct Announcer {
    interface: String,
    /// What netifd knows.
    told: Option<String>,
    /// What it is to know.
    wanted: Option<String>,
    /// The last error, and whether it is still to be told, when netifd knows the rest.
    complained: Option<String>,
    complaint: Option<String>,
    call: Option<Call>,
    /// When the next attempt is due.
    due: Instant,
    failures: u32,
    /// The last trouble, told to the log once.
    trouble: Option<String>,
}

impl Announcer {
    pub(crate) fn new(interface: &str) -> Announcer {
        Announcer {
            interface: interface.to_owned(),
            told: None,
            wanted: None,
            complained: None,
            complaint: None,
            call: None,
            due: Instant::ZERO,
            failures: 0,
            trouble: None,
        }
    }

    /// Tells `message`, unless it is what netifd knows already.
    pub(crate) fn announce(&mut self, message: String, now: Instant) {
        if self.wanted.as_ref().or(self.told.as_ref()) != Some(&message) {
            self.wanted = Some(message);
            (self.failures, self.due) = (0, now);
        }
    }

    /// Tells what is wrong, after everything else.
    pub(crate) fn complain(&mut self, reasons: &[String], now: Instant) {
        if reasons.is_empty() {
            self.complaint = None;
            return;
        }
        let complaint = Some(error(&reasons.join("; ")));
        if self.complained != complaint {
            self.complaint.clone_from(&complaint);
            (self.complained, self.due) = (complaint, now);
        }
    }

    /// Whether something was ever wrong.
    pub(crate) fn has_complained(&self) -> bool {
        self.complained.is_some()
    }

    /// When [`Announcer::tick`] is to be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match (&self.call, self.next()) {
            (Some(call), _) => Some(call.next_poll),
            (None, Some(_)) => Some(self.due),
            (None, None) => None,
        }
    }

    fn next(&self) -> Option<&String> {
        self.wanted.as_ref().or(self.complaint.as_ref())
    }

    /// Does what is due; `true`: netifd has just done what it was told.
    pub(crate) fn tick(&mut self, now: Instant) -> bool {
        if let Some(call) = &mut self.call {
            let Some(ended) = call.poll(now) else { return false };
            let message = core::mem::take(&mut call.message);
            self.call = None;
            match ended {
                Ok(()) => return self.succeeded(message),
                Err(why) => self.failed(&why, now),
            }
        }
        if let Some(message) = self.next().cloned().filter(|_| self.due <= now) {
            match Call::start(&self.interface, message, now, PATIENCE) {
                Ok(call) => self.call = Some(call),
                Err(why) => self.failed(&why, now),
            }
        }
        false
    }

    fn succeeded(&mut self, message: String) -> bool {
        (self.failures, self.trouble) = (0, None);
        if self.complaint.as_ref() == Some(&message) {
            self.complaint = None;
            return false;
        }
        if self.wanted.as_ref() == Some(&message) {
            self.wanted = None;
        }
        self.told = Some(message);
        true
    }

    fn failed(&mut self, why: &str, now: Instant) {
        let pause = Duration::from_secs(1 << self.failures.min(6)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.due = now.saturating_add(pause);
        if self.trouble.as_deref() != Some(why) {
            log::error!("{}: cannot tell netifd that it is up: {why}; tried again", self.interface);
            self.trouble = Some(why.to_owned());
        }
    }
}

/// A `ubus` that runs. Dropping it ends it.
struct Call {
    program: Program,
    message: String,
    next_poll: Instant,
    deadline: Instant,
}

impl Call {
    fn start(
        interface: &str,
        message: String,
        now: Instant,
        patience: Duration,
    ) -> Result<Call, String> {
        let object = format!("network.interface.{interface}");
        let arguments = ["call", &object, "notify_proto", &message];
        let started = Program::start(c"ubus", &arguments);
        let (program, _) = started.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "the program ubus is missing; --netifd is for \
                                        OpenWrt, leave it out elsewhere"
                .to_owned(),
            _ => format!("running ubus: {error}"),
        })?;
        let (next_poll, deadline) = (now.saturating_add(POLL), now.saturating_add(patience));
        Ok(Call { program, message, next_poll, deadline })
    }

    /// Whether it has ended, and how; it is ended when it takes too long.
    fn poll(&mut self, now: Instant) -> Option<Result<(), String>> {
        self.next_poll = now.saturating_add(POLL);
        match self.program.poll() {
            Ok(Some(ended)) => Some(ended.map(drop).map_err(|words| format!("ubus: {words}"))),
            Ok(None) if now < self.deadline => None,
            Ok(None) => Some(Err("ubus does not end".to_owned())),
            Err(error) => Some(Err(format!("waiting for ubus: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidrs(texts: &[&str]) -> Vec<IpCidr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn messages_are_netifds() {
        let addresses = cidrs(&["10.77.0.2/24", "fd77::2/64", "10.78.0.2/32"]);
        let routes = [
            ("10.1.0.0/16".parse().unwrap(), Some("192.0.2.1".parse().unwrap())),
            ("fd01::/48".parse().unwrap(), Some("fd00::1".parse().unwrap())),
            ("10.2.0.0/16".parse().unwrap(), None),
        ];
        assert_eq!(
            up("vpn0", &addresses, &routes, &[[10, 1, 0, 1].into()], Some("v\"pn"), None),
            "{\"action\":0,\"ifname\":\"vpn0\",\"link-up\":true,\"address-external\":false,\
             \"keep\":false,\
             \"ipaddr\":[{\"ipaddr\":\"10.77.0.2\",\"mask\":\"24\"},\
             {\"ipaddr\":\"10.78.0.2\",\"mask\":\"32\"}],\
             \"ip6addr\":[{\"ipaddr\":\"fd77::2\",\"mask\":\"64\"}],\
             \"routes\":[{\"target\":\"10.1.0.0\",\"netmask\":\"16\",\"source\":\"192.0.2.1\"},\
             {\"target\":\"10.2.0.0\",\"netmask\":\"16\"}],\
             \"routes6\":[{\"target\":\"fd01::\",\"netmask\":\"48\"}],\
             \"dns\":[\"10.1.0.1\"],\
             \"data\":{\"zone\":\"v\\\"pn\"}}"
        );
        assert_eq!(
            up("vpn0", &[], &[], &[], None, None),
            "{\"action\":0,\"ifname\":\"vpn0\",\"link-up\":true,\"address-external\":false,\
             \"keep\":false}"
        );
        let refused = ["f:1: peer 'x': wrong".to_owned()];
        assert_eq!(
            up("vpn0", &[], &[], &[], Some("lan"), Some(&refused)),
            "{\"action\":0,\"ifname\":\"vpn0\",\"link-up\":true,\"address-external\":false,\
             \"keep\":false,\"data\":{\"zone\":\"lan\",\"refused\":[\"f:1: peer 'x': wrong\"]}}"
        );
        assert_eq!(error("a \"b\"\n"), r#"{"action":3,"error":["a \"b\"\u000a"]}"#);
    }
}
