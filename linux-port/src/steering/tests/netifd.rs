//! Steering where others own addresses and routes in `main`, or where there is no daemon at all.

use super::*;

fn start_delegated(interface: &Interface, scratch: &Scratch) -> Steering {
    let underlay = Underlay { delegated: true, ..underlay(&[]) };
    let mut steering = Steering::prepare(interface, underlay, scratch.path()).unwrap();
    steering.install(tun(&interface.name)).unwrap();
    steering
}

#[test]
fn addresses_and_main_routes_are_left_to_others() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let mut config = policy(&["10.1.0.0/16", "fd01::/64"]);
        config.steering = model::Steering::Route;
        config.addresses = vec!["10.77.0.2/24".parse().unwrap()];
        let mut steering = start_delegated(&config, &scratch);
        assert_eq!(sh("ip -4 address show dev vpn0; ip route show table all dev vpn0"), {
            sh("ip route show table all dev vpn0 | grep -E 'fe80|ff00'")
        });
        assert_eq!(["10.1.2.3", "fd01::3"].map(way), ["unreachable"; 2]);
        let (addresses, routes) = steering.delegated();
        assert_eq!(addresses, config.addresses);
        let to: Vec<String> = routes.iter().map(|(prefix, _)| prefix.to_string()).collect();
        assert_eq!(to, ["10.1.0.0/16", "fd01::/64"]);

        sh("ip address add 10.78.0.2/24 dev vpn0; ip route add 10.1.0.0/16 dev vpn0 proto static");
        steering.refresh().unwrap();
        assert_eq!([way("10.1.2.3"), way("10.78.0.9")], ["vpn0"; 2]);
        steering.leave().unwrap();
        assert_eq!(way("10.1.2.3"), "vpn0");
        down("vpn0", scratch.path()).unwrap();
        assert_eq!([way("10.1.2.3"), way("10.78.0.9")], ["vpn0"; 2]);
    });
}

#[test]
fn nothing_of_a_policy_is_delegated_and_a_device_that_was_down_is_served_again() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let mut steering = start_delegated(&policy(&["10.1.0.0/16", "0.0.0.0/0"]), &scratch);
        assert!(steering.delegated().1.is_empty());
        assert_eq!([way("10.1.2.3"), way("8.8.8.8")], ["vpn0"; 2]);
        sh("ip link set vpn0 down; ip address flush dev vpn0");
        steering.refresh().unwrap();
        assert_eq!([way("10.1.2.3"), way("8.8.8.8")], ["unreachable"; 2]);
        sh("ip link set vpn0 up");
        steering.refresh().unwrap();
        assert_eq!([way("10.1.2.3"), way("8.8.8.8")], ["vpn0"; 2]);
    });
}

#[test]
fn closing_takes_no_device_and_is_remembered_until_it_is_opened() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        let (before, at_first) = (state(), way("8.8.8.8"));
        let config = policy(&["10.1.0.0/16", "fd01::/64", "0.0.0.0/0"]);
        close(&config, underlay(&[]), scratch.path()).unwrap();
        let once = state();
        close(&config, underlay(&[]), scratch.path()).unwrap();
        assert_eq!(state(), once);
        assert_eq!(["10.1.2.3", "fd01::3", "8.8.8.8"].map(way), ["unreachable"; 3]);
        assert_eq!(closed(scratch.path()).unwrap(), ["vpn0"]);
        // A daemon takes over and leaves.
        start(&config, &scratch).leave().unwrap();
        sh("ip link del vpn0");
        assert_eq!(["10.1.2.3", "fd01::3", "8.8.8.8"].map(way), ["unreachable"; 3]);
        assert_eq!(closed(scratch.path()).unwrap(), ["vpn0"]);
        down("vpn0", scratch.path()).unwrap();
        assert_eq!((state(), way("8.8.8.8")), (before, at_first));
        assert_eq!(closed(scratch.path()).unwrap(), [""; 0]);

        let open = Interface { killswitch: false, ..config };
        start(&open, &scratch).leave().unwrap();
        assert_eq!(closed(scratch.path()).unwrap(), [""; 0]);
    });
}

#[test]
fn what_cannot_be_filtered_is_closed_all_the_same() {
    within(|| {
        let (_lan, scratch) = (lan(), Scratch::new());
        crate::netns::private_mounts();
        sh("mount -t tmpfs none /usr/sbin");
        let config = policy(&["10.1.0.0/16", "0.0.0.0/0"]);
        let error = close(&config, underlay(&[]), scratch.path()).unwrap_err();
        assert!(matches!(error, Error::Firewall(nft::Error::Missing)), "{error}");
        assert_eq!(["10.1.2.3", "8.8.8.8"].map(way), ["unreachable"; 2]);
    });
}
