//! The numbers of IKEv2, by the names that IANA's registries have for them.
//!
//! Only what this implementation sends, understands or tells a person about is named. A number
//! without a name is kept as it is, so that a message can hold what was invented after us.

use core::fmt;

/// A type for the numbers of one registry.
macro_rules! registry {
    (
        $(#[$doc:meta])*
        $registry:ident($repr:ty) { $($(#[$entry_doc:meta])* $name:ident = $value:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $registry(pub $repr);

        #[allow(non_upper_case_globals)] // the registry's own spelling
        impl $registry {
            $(
                #[doc = concat!("`", stringify!($name), "`, ", stringify!($value), ".")]
                $(#[$entry_doc])*
                pub const $name: $registry = $registry($value);
            )*

            /// Its name in the registry, if we have one for it.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $registry {
            /// The name, or the number where there is none.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => self.0.fmt(f),
                }
            }
        }
    };
}

registry! {
    /// What an exchange is for (RFC 7296 §3.1).
    ExchangeType(u8) {
        IKE_SA_INIT = 34,
        IKE_AUTH = 35,
        CREATE_CHILD_SA = 36,
        INFORMATIONAL = 37,
    }
}

registry! {
    /// What a payload is (RFC 7296 §3.2).
    PayloadType(u8) {
        /// No payload follows.
        NONE = 0,
        /// Security association.
        SA = 33,
        /// Key exchange.
        KE = 34,
        /// The initiator's identity.
        IDi = 35,
        /// The responder's identity.
        IDr = 36,
        /// Certificate.
        CERT = 37,
        /// Certificate request.
        CERTREQ = 38,
        /// Authentication.
        AUTH = 39,
        /// Nonce; the registry calls it Ni, Nr.
        NONCE = 40,
        /// Notification; the registry calls it N.
        NOTIFY = 41,
        /// Delete; the registry calls it D.
        DELETE = 42,
        /// Vendor ID; the registry calls it V.
        VENDOR = 43,
        /// The initiator's traffic selectors.
        TSi = 44,
        /// The responder's traffic selectors.
        TSr = 45,
        /// Encrypted and authenticated payloads.
        SK = 46,
        /// Configuration.
        CP = 47,
        /// Extensible authentication.
        EAP = 48,
        /// A fragment of encrypted and authenticated payloads (RFC 7383 §2.5).
        SKF = 53,
    }
}

registry! {
    /// What an SA is of (RFC 7296 §3.3.1).
    Protocol(u8) {
        /// None: in notifications and deletions that are about no SA.
        NONE = 0,
        IKE = 1,
        AH = 2,
        ESP = 3,
    }
}

registry! {
    /// What kind of algorithm a transform is (RFC 7296 §3.3.2).
    TransformType(u8) {
        /// Encryption.
        ENCR = 1,
        /// Pseudorandom function.
        PRF = 2,
        /// Integrity.
        INTEG = 3,
        /// Key exchange method.
        KE = 4,
        /// Sequence numbers.
        SN = 5,
    }
}

registry! {
    /// Transforms of type [`TransformType::ENCR`].
    EncryptionAlgorithm(u16) {
        /// AES in counter mode with a 16-byte ICV of GCM (RFC 5282, RFC 4106).
        ENCR_AES_GCM_16 = 20,
        /// ChaCha20 and Poly1305 (RFC 7634).
        ENCR_CHACHA20_POLY1305 = 28,
    }
}

registry! {
    /// Transforms of type [`TransformType::PRF`].
    PseudorandomFunction(u16) {
        /// RFC 4868.
        PRF_HMAC_SHA2_256 = 5,
    }
}

registry! {
    /// Transforms of type [`TransformType::INTEG`].
    IntegrityAlgorithm(u16) {
        NONE = 0,
    }
}

registry! {
    /// Transforms of type [`TransformType::KE`], and what a KE payload is for.
    KeyExchangeMethod(u16) {
        NONE = 0,
        /// P-256 (RFC 5903).
        ECP256 = 19,
        /// X25519 (RFC 8031).
        CURVE25519 = 31,
    }
}

registry! {
    /// Transforms of type [`TransformType::SN`].
    SequenceNumbers(u16) {
        /// 32 bits.
        NO_ESN = 0,
        /// 64 bits, of which the lower half is sent.
        ESN = 1,
    }
}

registry! {
    /// Attributes of transforms (RFC 7296 §3.3.5), without the bit that tells their format.
    TransformAttributeType(u16) {
        /// In bits.
        KEY_LENGTH = 14,
    }
}

registry! {
    /// Kinds of identities (RFC 7296 §3.5).
    IdType(u8) {
        ID_IPV4_ADDR = 1,
        ID_FQDN = 2,
        ID_RFC822_ADDR = 3,
        ID_IPV6_ADDR = 5,
        ID_DER_ASN1_DN = 9,
        ID_DER_ASN1_GN = 10,
        ID_KEY_ID = 11,
    }
}

registry! {
    /// How an end proves its identity (RFC 7296 §3.8).
    AuthMethod(u8) {
        RSA_DIGITAL_SIGNATURE = 1,
        SHARED_KEY_MESSAGE_INTEGRITY_CODE = 2,
        /// RFC 7427.
        DIGITAL_SIGNATURE = 14,
    }
}

registry! {
    /// Hash functions of signatures (RFC 7427 §4).
    HashAlgorithm(u16) {
        SHA1 = 1,
        SHA2_256 = 2,
        SHA2_384 = 3,
        SHA2_512 = 4,
        /// None: the signature hashes by itself, as Ed25519 does (RFC 8420 §2).
        IDENTITY = 5,
    }
}

registry! {
    /// What a notification says (RFC 7296 §3.10.1).
    NotifyType(u16) {
        UNSUPPORTED_CRITICAL_PAYLOAD = 1,
        INVALID_IKE_SPI = 4,
        INVALID_MAJOR_VERSION = 5,
        INVALID_SYNTAX = 7,
        INVALID_MESSAGE_ID = 9,
        INVALID_SPI = 11,
        NO_PROPOSAL_CHOSEN = 14,
        INVALID_KE_PAYLOAD = 17,
        AUTHENTICATION_FAILED = 24,
        SINGLE_PAIR_REQUIRED = 34,
        NO_ADDITIONAL_SAS = 35,
        INTERNAL_ADDRESS_FAILURE = 36,
        FAILED_CP_REQUIRED = 37,
        TS_UNACCEPTABLE = 38,
        INVALID_SELECTORS = 39,
        /// RFC 4555 §4.2.
        UNACCEPTABLE_ADDRESSES = 40,
        /// RFC 4555 §4.2.
        UNEXPECTED_NAT_DETECTED = 41,
        TEMPORARY_FAILURE = 43,
        CHILD_SA_NOT_FOUND = 44,
        INITIAL_CONTACT = 16384,
        SET_WINDOW_SIZE = 16385,
        ADDITIONAL_TS_POSSIBLE = 16386,
        IPCOMP_SUPPORTED = 16387,
        NAT_DETECTION_SOURCE_IP = 16388,
        NAT_DETECTION_DESTINATION_IP = 16389,
        COOKIE = 16390,
        USE_TRANSPORT_MODE = 16391,
        HTTP_CERT_LOOKUP_SUPPORTED = 16392,
        REKEY_SA = 16393,
        ESP_TFC_PADDING_NOT_SUPPORTED = 16394,
        NON_FIRST_FRAGMENTS_ALSO = 16395,
        /// RFC 4555 §4.2, as the six below.
        MOBIKE_SUPPORTED = 16396,
        ADDITIONAL_IP4_ADDRESS = 16397,
        ADDITIONAL_IP6_ADDRESS = 16398,
        NO_ADDITIONAL_ADDRESSES = 16399,
        UPDATE_SA_ADDRESSES = 16400,
        COOKIE2 = 16401,
        NO_NATS_ALLOWED = 16402,
        /// RFC 4478.
        AUTH_LIFETIME = 16403,
        /// RFC 4739.
        MULTIPLE_AUTH_SUPPORTED = 16404,
        /// RFC 5723.
        TICKET_OPAQUE = 16409,
        /// RFC 5685.
        REDIRECT_SUPPORTED = 16406,
        /// RFC 5998.
        EAP_ONLY_AUTHENTICATION = 16417,
        /// RFC 6023.
        CHILDLESS_IKEV2_SUPPORTED = 16418,
        /// RFC 6290.
        QUICK_CRASH_DETECTION = 16419,
        /// RFC 6311.
        IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420,
        /// RFC 7383 §2.3.
        IKEV2_FRAGMENTATION_SUPPORTED = 16430,
        /// RFC 7427 §4.
        SIGNATURE_HASH_ALGORITHMS = 16431,
        /// RFC 8784 §3, as the two below.
        USE_PPK = 16435,
        PPK_IDENTITY = 16436,
        NO_PPK_AUTH = 16437,
        /// RFC 9370 §2.
        INTERMEDIATE_EXCHANGE_SUPPORTED = 16438,
    }
}

impl NotifyType {
    /// Whether it says that the request failed (RFC 7296 §3.10.1). A number without a name does so
    /// too when it is in the range of errors.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0 < NotifyType::INITIAL_CONTACT.0
    }
}

registry! {
    /// How a PPK_IDENTITY is meant (RFC 8784 §5.1).
    PpkIdType(u8) {
        /// Any bytes, of a scheme that both ends know.
        PPK_ID_OPAQUE = 1,
        /// Any bytes, the same as configured.
        PPK_ID_FIXED = 2,
    }
}

registry! {
    /// Kinds of traffic selectors (RFC 7296 §3.13.1).
    TsType(u8) {
        TS_IPV4_ADDR_RANGE = 7,
        TS_IPV6_ADDR_RANGE = 8,
    }
}

registry! {
    /// What a configuration payload wants (RFC 7296 §3.15).
    CfgType(u8) {
        CFG_REQUEST = 1,
        CFG_REPLY = 2,
        CFG_SET = 3,
        CFG_ACK = 4,
    }
}

registry! {
    /// What an attribute of a configuration payload is (RFC 7296 §3.15.1).
    CfgAttributeType(u16) {
        INTERNAL_IP4_ADDRESS = 1,
        INTERNAL_IP4_NETMASK = 2,
        INTERNAL_IP4_DNS = 3,
        INTERNAL_IP4_NBNS = 4,
        INTERNAL_IP4_DHCP = 6,
        APPLICATION_VERSION = 7,
        INTERNAL_IP6_ADDRESS = 8,
        INTERNAL_IP6_DNS = 10,
        INTERNAL_IP6_DHCP = 12,
        INTERNAL_IP4_SUBNET = 13,
        SUPPORTED_ATTRIBUTES = 14,
        INTERNAL_IP6_SUBNET = 15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn names_are_the_registry_s_and_unknown_numbers_stay() {
        assert_eq!(NotifyType(14).to_string(), "NO_PROPOSAL_CHOSEN");
        assert_eq!(NotifyType(8192).to_string(), "8192");
        assert_eq!(PayloadType(44).to_string(), "TSi");
        assert_eq!(PayloadType(200).to_string(), "200");
    }

    #[test]
    fn errors_end_where_statuses_begin() {
        assert!(NotifyType::CHILD_SA_NOT_FOUND.is_error() && NotifyType(16383).is_error());
        assert!(!NotifyType::INITIAL_CONTACT.is_error() && !NotifyType(u16::MAX).is_error());
    }
}
