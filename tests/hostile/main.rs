//! `hostile PACKETS [SEED]`: so many random and mutated packets through `open`, half as many through
//! the sealer, a tenth as many through each of the parsers; the same seed gives the same packets.
//! `hostile PACKETS SEED CHECK`: so many inputs to one check alone, as `ike_exchanges`.
//!
//! Best with arithmetic checked and the speed of a release:
//! `cargo run -p simplevpn-tests --profile checked --bin hostile -- 10000000 1`

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use simplevpn_tests::hostile::{Attack, targets};

/// The packet that is under way, for those who read of a panic.
static AT: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<_> = arguments.iter().take(2).map(|text| text.parse::<u64>()).collect();
    let only = targets::ALL.iter().find(|(name, _)| arguments.get(2).is_some_and(|it| it == name));
    let (packets, seed) = match numbers[..] {
        [Ok(packets)] => (packets as usize, 1),
        [Ok(packets), Ok(seed)] if arguments.len() == 2 || only.is_some() => {
            (packets as usize, seed)
        }
        _ => {
            eprintln!("usage: hostile PACKETS [SEED [CHECK]]");
            return ExitCode::from(2);
        }
    };
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("packet {} of seed {seed}:", AT.load(Ordering::Relaxed));
        report(panic);
    }));

    let mut attack = Attack::new(seed);
    if let Some(only) = only {
        for at in 0..packets {
            AT.store(at, Ordering::Relaxed);
            attack.parsers(only);
        }
        println!("{packets} inputs to {}, seed {seed}", only.0);
        return ExitCode::SUCCESS;
    }
    for at in 0..packets {
        AT.store(at, Ordering::Relaxed);
        attack.inbound();
        if at % 2 == 0 {
            attack.outbound();
        }
        if at % 10 == 0 {
            targets::ALL.iter().for_each(|target| attack.parsers(target));
        }
    }
    println!("{} packets from the wire, seed {seed}\n{}", attack.inbound.total(), attack.inbound);
    println!("{} packets from the host\n{}", packets.div_ceil(2), attack.outbound);
    let parsers = targets::ALL.map(|(name, _)| name).join(", ");
    println!("{} inputs each to {parsers}", packets.div_ceil(10));
    ExitCode::SUCCESS
}
