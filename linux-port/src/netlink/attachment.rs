//! What this machine is attached to: its addresses, and the networks that are connected because of
//! them.

use core::net::IpAddr;

use smoltcp::wire::IpCidr;

use super::message::{Message, Request, attributes, number::*, read_address, read_u8, read_u32};
use super::{Error, Netlink, cidr, error, network};

/// An address of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Index of its device.
    pub device: u32,
    /// The address.
    pub address: IpAddr,
    /// The network that it connects to; on a link with two ends, the far end.
    pub network: IpCidr,
}

impl Netlink {
    /// Every address of this machine, with its network.
    ///
    /// # Errors
    /// When the kernel refuses the question.
    pub fn attachments(&mut self) -> Result<Vec<Attachment>, Error> {
        let mut found = Vec::new();
        let request = Request::new(RTM_GETADDR, NLM_F_DUMP, &[0; 8]);
        self.exchange(&request, &mut |m| found.extend(parse(m)))
            .map_err(|e| error("listing addresses".into(), e))?;
        Ok(found)
    }
}

fn parse(message: &Message<'_>) -> Option<Attachment> {
    let (prefix_len, device) = (read_u8(message.body, 1)?, read_u32(message.body, 4)?);
    let (mut local, mut far) = (None, None);
    for (kind, payload) in attributes(message.body.get(8..)?) {
        match kind {
            IFA_LOCAL => local = read_address(payload),
            IFA_ADDRESS => far = read_address(payload),
            _ => {}
        }
    }
    let network = network(&cidr(far.or(local)?, prefix_len)?);
    Some(Attachment { device, address: local.or(far)?, network })
}
