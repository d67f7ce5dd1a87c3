//! What several labs share.

use simplevpn_tests::lab::capture::Captured;
pub(crate) use simplevpn_tests::lab::sites::{SITE_A, SITE_B, Sites, translate_to};
use simplevpn_tests::lab::traffic::MARKER;

/// Fails unless an eavesdropper saw ESP and nothing more.
pub(crate) fn assert_secret(seen: &Captured) {
    seen.assert_only_esp();
    assert!(!seen.contains(MARKER), "the marker is on the wire");
}
