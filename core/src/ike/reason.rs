//! Why there is no connection, in one plain sentence.

use core::fmt;

use super::wire::Malformed;
use super::wire::numbers::NotifyType;

/// Why there is no connection, or not the whole of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Nothing came back.
    NoAnswer,
    /// The peer does not take any of the algorithms that we offer.
    ProposalRefused,
    /// We do not take any of the algorithms that the peer offers.
    NoCommonProposal,
    /// It speaks version 1 of IKE.
    IkeV1,
    /// What the peer has chosen is nothing that we have offered.
    ProposalNotOffered,
    /// The peer says that we are not who we say, or nobody it knows.
    TheyRefuseOurKey,
    /// The peer does not have the configured key.
    WrongKey,
    /// The peer authenticates in another way than is configured.
    WrongMethod,
    /// The peer calls itself something else than is configured.
    WrongIdentity,
    /// It calls itself something that no peer is configured to be.
    UnknownPeer,
    /// The peer cannot verify Ed25519 signatures (it did not announce the hash function Identity,
    /// RFC 8420).
    NoEd25519,
    /// The peer knows no postquantum preshared key (RFC 8784), or not that one.
    NoPpk,
    /// The peer does not take any of the algorithms for ESP that we offer.
    ChildProposalRefused,
    /// We do not take any of the algorithms for ESP that the peer offers.
    NoCommonChildProposal,
    /// The peer does not take our traffic selectors.
    SelectorsRefused,
    /// Nothing of the peer's traffic selectors lies in what is configured.
    NoCommonSelectors,
    /// The peer gives us no address.
    NoAddress,
    /// The peer has closed the connection.
    PeerClosed,
    /// The peer has deleted the child SA, and kept the IKE SA.
    PeerClosedChild,
    /// We have closed the connection.
    Closed,
    /// The peer has connected anew.
    Replaced,
    /// Its keys were not replaced in time.
    Expired,
    /// The peer's public value is none of its group.
    BadPublicValue,
    /// The peer refuses, and says why.
    Refused(NotifyType),
    /// The peer's message breaks the rules.
    Malformed(Malformed),
    /// Our own message is too long: identities, prefixes.
    TooLong,
    /// Somebody with the peer's keys has confirmed our new address without having been asked there.
    NotRoutable,
    /// There is no room for more SAs.
    Full,
    /// The peer is not configured any more.
    Forgotten,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NoAnswer => "no answer",
            Reason::ProposalRefused => "proposal refused: they accept none of our algorithms",
            Reason::NoCommonProposal => "proposal refused: they offer no algorithms of ours",
            Reason::IkeV1 => "they speak IKEv1, and here only IKEv2 is spoken",
            Reason::ProposalNotOffered => "they chose algorithms that were not offered",
            Reason::TheyRefuseOurKey => {
                "authentication failed: they refuse our key, or do not know our identity"
            }
            Reason::WrongKey => "authentication failed: their key is not the configured one",
            Reason::WrongMethod => {
                "authentication failed: they use another method than the configured one"
            }
            Reason::WrongIdentity => {
                "authentication failed: their identity is not the configured one"
            }
            Reason::UnknownPeer => {
                "authentication failed: their identity is that of no configured peer"
            }
            Reason::NoEd25519 => "they cannot verify Ed25519 signatures",
            Reason::NoPpk => {
                "no common postquantum preshared key: they have none, or another, and ours is \
                 required"
            }
            Reason::ChildProposalRefused => {
                "proposal refused: they accept none of our algorithms for ESP"
            }
            Reason::NoCommonChildProposal => {
                "proposal refused: they offer no algorithms of ours for ESP"
            }
            Reason::SelectorsRefused => {
                "selectors refused: their configured prefixes have nothing in common with ours"
            }
            Reason::NoCommonSelectors => {
                "selectors refused: they offer no prefixes that are configured here"
            }
            Reason::NoAddress => "they gave us no address",
            Reason::PeerClosed => "they closed the connection",
            Reason::PeerClosedChild => "they deleted the SAs for packets",
            Reason::Closed => "closed",
            Reason::Replaced => "replaced by a new connection",
            Reason::Expired => "its keys were too old and could not be replaced",
            Reason::BadPublicValue => "their key exchange is invalid",
            Reason::Refused(notify) => return write!(f, "they refuse: {notify}"),
            Reason::Malformed(malformed) => {
                return write!(f, "they sent a message that breaks the rules: {malformed}");
            }
            Reason::TooLong => "our identities and prefixes do not fit one message",
            Reason::NotRoutable => {
                "they confirmed our new address without the proof of it (COOKIE2)"
            }
            Reason::Full => "there is no room for more SAs",
            Reason::Forgotten => "not configured any more",
        })
    }
}
