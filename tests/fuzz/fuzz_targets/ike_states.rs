#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| simplevpn_tests::hostile::targets::ike_states(bytes));
