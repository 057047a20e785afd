//! Our client against the kit of servers that misbehave: it passes every case. `CASE=name` runs the cases whose names hold that.

use std::sync::Mutex;

use acceptance::device::Device;
use acceptance::needs_containers;
use clouds::client::Client;
use clouds::kit::cases;
use clouds::kit_run::run;

/// Cases that run beside each other, each on a device of its own: they mostly wait.
const AT_ONCE: usize = 4;

#[test]
fn our_client_passes_every_case() {
    needs_containers!();
    let only = std::env::var("CASE").unwrap_or_default();
    let todo: Vec<_> = cases().filter(|case| case.name.contains(&only)).collect();
    let left = Mutex::new(todo.into_iter());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let device = Device::start();
                let socket = device.run_dir().join("control.sock");
                loop {
                    let next = left.lock().expect("no other thread panicked").next();
                    let Some(case) = next else { break };
                    let result = run(case, |access, folder| {
                        let folder = folder.display().to_string();
                        let settings = [
                            ("folder", folder.as_str()),
                            ("poll-interval", "4s"),
                            ("poll-max", "24h"),
                            ("back-off-max", "30s"),
                        ];
                        Client::start(&socket, access, &settings)
                    });
                    results
                        .lock()
                        .expect("no other thread panicked")
                        .push((case.name, case.what, result));
                }
            });
        }
    });
    let results = results.into_inner().expect("no thread panicked");
    let mut failed = 0;
    for (name, what, result) in &results {
        match result {
            Ok(()) => eprintln!("passed {name:<18} {what}"),
            Err(why) => {
                failed += 1;
                eprintln!("FAILED {name:<18} {what}: {why}");
            }
        }
    }
    assert!(!results.is_empty(), "no case is called {only:?}");
    assert_eq!(failed, 0, "of {} cases", results.len());
}
