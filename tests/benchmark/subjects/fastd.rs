//! fastd, with the method its authors recommend.

use simplevpn_tests::lab::Host;
use simplevpn_tests::lab::sites::Sites;

use super::{ask, await_that, has_device, use_device, write};
use crate::program::{End, Program};

const DEVICE: &str = "fastd0";
const MTU: u16 = 1400;

/// Starts it on both gateways.
pub(crate) fn start(sites: &Sites) -> Result<Vec<End>, String> {
    let key = || ask(&sites.a, "fastd --generate-key --machine-readable", "");
    let (of_a, of_b) = (key()?, key()?);
    let a = run(sites, &sites.a, &of_a, &public(&sites.b, &of_b)?, "192.0.2.2")?;
    let b = run(sites, &sites.b, &of_b, &public(&sites.a, &of_a)?, "192.0.2.1")?;
    Ok(vec![a, b])
}

fn public(host: &Host, secret: &str) -> Result<String, String> {
    let file = write(host, "secret", &format!("secret \"{secret}\";\n"))?;
    ask(host, &format!("fastd --show-key --machine-readable --config {file}"), "")
}

fn run(sites: &Sites, at: &Host, secret: &str, peer: &str, endpoint: &str) -> Result<End, String> {
    let config = format!(
        "mode tun;\ninterface \"{DEVICE}\";\nmtu {MTU};\nmethod \"salsa2012+umac\";\n\
         bind any:10000;\nsecret \"{secret}\";\n\
         peer \"other\" {{ key \"{peer}\"; remote {endpoint}:10000; }}\n"
    );
    let config = write(at, "fastd.conf", &config)?;
    let end = End::Theirs(Program::start(at, at.command(&format!("fastd --config {config}")))?);
    await_that(&end, DEVICE, || has_device(at, DEVICE))?;
    use_device(sites, at, DEVICE, MTU);
    Ok(end)
}
