//! OpenVPN over UDP between two ends that know each other's certificate, without the kernel's
//! data channel.

use simplevpn_tests::lab::Host;
use simplevpn_tests::lab::sites::Sites;

use super::{ask, await_that, has_device, use_device, write};
use crate::program::{End, Program};

const DEVICE: &str = "tun0";
const MTU: u16 = 1500;

/// Starts it on both gateways.
pub(crate) fn start(sites: &Sites, cipher: &str) -> Result<Vec<End>, String> {
    let (of_a, of_b) = (certificate(&sites.a)?, certificate(&sites.b)?);
    let a = run(sites, &sites.a, "tls-client", cipher, &of_b, "192.0.2.2")?;
    let b = run(sites, &sites.b, "tls-server\ndh none", cipher, &of_a, "192.0.2.1")?;
    Ok(vec![a, b])
}

/// Makes a key and a certificate, and returns the fingerprint.
fn certificate(host: &Host) -> Result<String, String> {
    let dir = host.dir().display();
    ask(
        host,
        &format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
             -subj /CN={} -keyout {dir}/key.pem -out {dir}/cert.pem",
            host.name()
        ),
        "",
    )?;
    let words = format!("openssl x509 -in {dir}/cert.pem -noout -fingerprint -sha256");
    let said = ask(host, &words, "")?;
    said.split_once('=').map(|(_, print)| print.to_owned()).ok_or(said)
}

fn run(
    sites: &Sites,
    at: &Host,
    role: &str,
    cipher: &str,
    peer: &str,
    endpoint: &str,
) -> Result<End, String> {
    let dir = at.dir().display();
    let config = format!(
        "dev {DEVICE}\ndev-type tun\nproto udp\nremote {endpoint} 1194\nlport 1194\n{role}\n\
         key {dir}/key.pem\ncert {dir}/cert.pem\npeer-fingerprint {peer}\n\
         data-ciphers {cipher}\ndisable-dco\ntun-mtu {MTU}\n"
    );
    let config = write(at, "openvpn.conf", &config)?;
    let end = End::Theirs(Program::start(at, at.command(&format!("openvpn --config {config}")))?);
    await_that(&end, DEVICE, || has_device(at, DEVICE))?;
    use_device(sites, at, DEVICE, MTU);
    Ok(end)
}
