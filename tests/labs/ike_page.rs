//! What README.md and docs/STRONGSWAN.md tell people to write, as it stands there: their blocks are
//! cut out, keys are made by their commands and filled in, and the tunnels have to work.
//!
//! Of the text only this is changed: `/etc/simplevpn` and `/etc/swanctl` are directories of the
//! lab, `vpn.example.net` is an address, and `<…>` is what it says.

use simplevpn_tests::lab::daemon::{Daemon, binary};
use simplevpn_tests::lab::{Host, Lab, process};
use simplevpn_tests::peers::strongswan::StrongSwan;
use simplevpn_tests::peers::swanctl::Connection;

use crate::ike::{PROMPT, says, sites};
use crate::topology::{Sites, assert_secret};

/// A page in Markdown.
struct Page(&'static str);

const README: Page = Page(include_str!("../../README.md"));
const STRONGSWAN: Page = Page(include_str!("../../docs/STRONGSWAN.md"));

impl Page {
    /// The code blocks below a heading, before the next: language, content.
    fn blocks(&self, heading: &str) -> Vec<(&'static str, String)> {
        let mut lines = self.0.lines().skip_while(|line| line.trim_start_matches('#') != heading);
        assert!(lines.next().is_some(), "no heading {heading}");
        let (mut blocks, mut inside) = (Vec::new(), false);
        for line in lines {
            match line.strip_prefix("```") {
                Some(_) if inside => inside = false,
                Some(language) => {
                    inside = true;
                    blocks.push((language, String::new()));
                }
                None if inside => {
                    let (_, text) = blocks.last_mut().unwrap();
                    *text += &format!("{line}\n");
                }
                None if line.starts_with('#') => break,
                None => {}
            }
        }
        blocks
    }

    /// Those in one language; there have to be `N`.
    fn in_language<const N: usize>(&self, heading: &str, language: &str) -> [String; N] {
        let of_it = |(found, text): (&str, String)| (found == language).then_some(text);
        let blocks: Vec<String> = self.blocks(heading).into_iter().filter_map(of_it).collect();
        let found = blocks.len();
        blocks.try_into().unwrap_or_else(|_| panic!("{found} of {language} below {heading}"))
    }
}

/// A page's text on a machine of the lab.
fn here(host: &Host, text: &str) -> String {
    let dir = host.dir().display();
    text.replace("/etc/simplevpn", &format!("{dir}/simplevpn"))
        .replace("/etc/swanctl", &format!("{dir}/strongswan"))
        .replace("vpn.example.net", "192.0.2.2")
}

/// Puts a value in the place of the one `<…>`.
fn fill(text: &str, value: &str) -> String {
    let (before, rest) = text.split_once('<').unwrap();
    let (_, after) = rest.split_once('>').unwrap();
    assert!(!after.contains('<'), "more than one place to fill in:\n{text}");
    format!("{before}{}{after}", value.trim())
}

/// Runs a page's commands, and returns what they print.
fn runs(host: &Host, text: &str) -> String {
    let programs = binary().parent().unwrap().display();
    let path = format!("PATH={programs}:/usr/sbin:/usr/bin:/sbin:/bin");
    let output = process::run(
        host.command(&format!("env {path} sh -e")),
        &here(host, text),
        process::PATIENCE,
    );
    assert!(output.success, "{text}\n{}{}", output.stdout, output.stderr);
    output.stdout
}

fn starts(host: &Host, text: &str) -> Daemon {
    host.starts_text(&here(host, text))
}

/// strongSwan with this configuration, whose keys are there already.
fn swan(host: &Host, text: &str) -> StrongSwan {
    host.runs_strongswan(&Connection::written(&here(host, text)))
}

/// What a package makes at its installation.
fn swanctl_directories(host: &Host) {
    let dir = host.dir().join("strongswan").display().to_string();
    host.run(&format!("mkdir -p {dir}/private {dir}/pubkey"));
}

/// Both ends are up, everything arrives, and nobody on the wire can read it.
fn works(sites: &Sites, us: &Daemon, swan: &StrongSwan) {
    assert!(sites.client.reaches_within("10.2.0.2", PROMPT), "{}\n{}", us.show(), swan.log());
    let wire = sites.a.capture("wan");
    sites.client.assert_uses(&sites.server, "10.2.0.2");
    sites.server.assert_uses(&sites.client, "10.1.0.2");
    assert_secret(&wire.finish());
    says(us, "state: up");
    assert!(swan.sa().is_up());
}

///  192.168.1.2 client -- a == b, which is vpn.example.net -- server 10.1.0.2
#[test]
fn the_readme() {
    let lab = Lab::new();
    let [client, a, b, server] = lab.hosts(["client", "a", "b", "server"]);
    lab.link(client.port("eth0", "192.168.1.2/24"), a.port("lan", "192.168.1.1/24"));
    lab.link(a.port("wan", "192.0.2.1/24"), b.port("wan", "192.0.2.2/24"));
    lab.link(b.port("lan", "10.1.0.1/24"), server.port("eth0", "10.1.0.2/24"));
    client.default_via("192.168.1.1");
    server.default_via("10.1.0.1");
    a.forwards();
    b.forwards();

    const HEADING: &str = " A tunnel in one page";
    let [keys, _use] = README.in_language(HEADING, "sh");
    let [of_a, of_b] = README.in_language(HEADING, "");
    let [public_a, public_b] = [&a, &b].map(|host| runs(host, &keys));
    let b = starts(&b, &fill(&of_b, &public_a));
    let a_runs = starts(&a, &fill(&of_a, &public_b));
    let wire = a.capture("wan");
    assert!(client.reaches_within("10.1.0.2", PROMPT), "{}\n{}", a_runs.show(), b.show());
    client.assert_uses(&server, "10.1.0.2");
    server.assert_uses(&client, "192.168.1.2");
    assert_secret(&wire.finish());
}

/// Makes keys as the page says, and runs what it says below this heading.
fn by_public_keys(sites: &Sites, heading: &str) -> (Daemon, StrongSwan) {
    swanctl_directories(&sites.b);
    let [at_a, at_b] = STRONGSWAN.in_language(" Public keys", "sh");
    let (pem, public_key) = (runs(&sites.a, &at_a), runs(&sites.b, &at_b));
    let to = sites.b.dir().join("strongswan/pubkey/ours.pem");
    std::fs::write(to, pem).unwrap();
    let [ours] = STRONGSWAN.in_language(heading, "uci");
    let [theirs] = STRONGSWAN.in_language(heading, "swanctl");
    let swan = swan(&sites.b, &theirs);
    (starts(&sites.a, &fill(&ours, &public_key)), swan)
}

///  client -- a == strongSwan b -- server
#[test]
fn strongswan_by_public_keys() {
    let (_lab, sites) = sites();
    let (us, swan) = by_public_keys(&sites, " Public keys");
    works(&sites, &us, &swan);
}

///  client -- a 10.9.0.2 -- nat 192.0.2.1 == strongSwan b -- server, with the same text
#[test]
fn strongswan_from_behind_a_nat() {
    let lab = Lab::new();
    let (sites, _nat) = Sites::behind_nat(&lab);
    let (us, swan) = by_public_keys(&sites, " Public keys");
    works(&sites, &us, &swan);
    assert_eq!(swan.sa().value("nat-remote"), "yes");
}

///  client -- a == strongSwan b -- server
#[test]
fn strongswan_by_a_preshared_key() {
    let (_lab, sites) = sites();
    let psk = runs(&sites.a, "simplevpn genpsk");
    let [ours] = STRONGSWAN.in_language(" A preshared key", "uci");
    let [theirs] = STRONGSWAN.in_language(" A preshared key", "swanctl");
    let swan = swan(&sites.b, &fill(&theirs, &psk));
    let us = starts(&sites.a, &fill(&ours, &psk));
    works(&sites, &us, &swan);
}

///  a, which gets an address == strongSwan b -- server
#[test]
fn an_address_from_strongswan() {
    let (_lab, sites) = sites();
    let (us, swan) = by_public_keys(&sites, " An address from strongSwan");
    assert!(sites.a.reaches_within("10.2.0.2", PROMPT), "{}\n{}", us.show(), swan.log());
    sites.a.assert_uses(&sites.server, "10.2.0.2");
    sites.server.assert_uses(&sites.a, "10.77.0.1");
}

/// Every reason that the page explains is one that we give, in these words.
#[test]
fn reasons_are_called_what_we_call_them() {
    let explained = STRONGSWAN.0.lines().filter_map(|line| line.strip_prefix("| `"));
    let reasons = include_str!("../../core/src/ike/reason.rs");
    for reason in explained.map(|line| line.split('`').next().unwrap()) {
        let known = reasons.contains(&format!("\"{reason}")) || reason == "state: up";
        assert!(known, "{reason}");
    }
}
