//! What a configuration may not say, and what the user is told instead.
//!
//! Each case changes one thing in a valid configuration: `GOOD` with one line replaced, or with
//! lines added to a section.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ike;
mod interface;
mod manual;
mod peer;
mod refused;
mod sections;

use simplevpn::config::{self, Diagnostic, Loaded};

const KEY_A: &str = "a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4";
const KEY_B: &str = "d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4";
const KEY_C: &str = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324";
const KEY_D: &str = "4142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f6061626364";

fn peer(name: &str, prefix: &str, spi: u32, key_in: &str, key_out: &str) -> String {
    format!(
        "config simplevpn_vpn0 '{name}'\n\
         \toption endpoint_host '192.0.2.{spi}'\n\
         \tlist allowed_ips '{prefix}'\n\
         \toption keying 'manual'\n\
         \toption spi_in '0x1{spi:03}'\n\
         \toption spi_out '0x2{spi:03}'\n\
         \toption key_in '{key_in}'\n\
         \toption key_out '{key_out}'\n"
    )
}

/// Lines 1–6 the interface, 7–14 `office`, 15–22 `home`.
fn good() -> String {
    let interface = "config interface 'vpn0'\n\
                     \toption proto 'simplevpn'\n\
                     \tlist addresses '10.77.0.2/24'\n\
                     \toption mtu 'auto'\n\
                     \toption steering 'auto'\n\
                     \toption killswitch '1'\n";
    let office = peer("office", "10.1.0.0/16", 1, KEY_A, KEY_B);
    let home = peer("home", "10.2.0.0/16", 2, KEY_C, KEY_D);
    format!("{interface}{office}{home}")
}

/// `good()` with line number `line` replaced, from which later lines keep their numbers only if
/// the replacement is one line.
fn with(line: usize, replacement: &str) -> String {
    let mut lines: Vec<String> = good().lines().map(str::to_owned).collect();
    lines[line - 1] = replacement.to_owned();
    lines.join("\n")
}

fn errors(text: &str) -> Vec<String> {
    match config::parse("f", text) {
        Ok(loaded) => panic!("accepted: {loaded:?}\n{text}"),
        Err(errors) => errors.iter().map(|error| anonymous(text, error)).collect(),
    }
}

/// A message without the name of the peer that it is about, which it has to have if its line is one
/// of a peer's section.
fn anonymous(text: &str, diagnostic: &Diagnostic) -> String {
    let lines: Vec<&str> = text.lines().take(diagnostic.line).collect();
    let words = |line: &&str| -> Vec<String> {
        line.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect()
    };
    let mut sections: Vec<Vec<String>> = lines.iter().map(words).collect();
    sections.retain(|words| words.first().is_some_and(|word| word == "config"));
    let section = sections.last().filter(|section| section[1].starts_with("simplevpn_"));
    // Of a peer without an interface nothing is read.
    let stray = diagnostic.message.starts_with("peer of an interface ");
    let Some(section) = section.filter(|_| !stray) else { return diagnostic.to_string() };
    let index = sections.iter().filter(|other| other[1] == section[1]).count() - 1;
    let peer = match section.get(2) {
        Some(name) => format!("peer '{name}': "),
        None => format!("peer @{}[{index}]: ", section[1]),
    };
    let named = diagnostic.message.strip_prefix(&peer);
    let message = named.unwrap_or_else(|| panic!("{diagnostic} does not name {peer}"));
    format!("{}: {message}", diagnostic.place())
}

fn accepted(text: &str) -> Loaded {
    config::parse("f", text).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"))
}

fn warnings(text: &str) -> Vec<String> {
    accepted(text).warnings.iter().map(|warning| anonymous(text, warning)).collect()
}

#[test]
fn the_configuration_that_the_cases_change_is_good() {
    assert_eq!(warnings(&good()), [""; 0]);
}

/// Line replaced, replacement, the one message expected.
type Case = (usize, &'static str, &'static str);

fn check(cases: &[Case]) {
    for (line, replacement, message) in cases {
        assert_eq!(errors(&with(*line, replacement)), [*message], "line {line}: {replacement}");
    }
}
