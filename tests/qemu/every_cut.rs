//! Every cut that a disk could have seen: lives of a device are recorded write by write, and the power is cut at thousands of places
//! of the recording. `CUT_POINTS=n` says at how many (default: twice at each flush, which is more than 5000), `CUT_BOOTS=n` how many
//! of these are booted (default 20).
//!
//! At each place the disk is made as a cut could leave it: what was flushed, and of the rest nothing, any of the writes in any order,
//! or any of the sectors. Then the file system is mounted and checked, and the tree is judged by `coxswain check` and by
//! [`inspect`], which knows what the device had answered until then. The same judges must find out a disk that lies about its flushes.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Instant;

use crate::bench;
use crate::invariants::{When, inspect};
use crate::life::{DISK_BYTES, Life, OPTIONS, boot, live, parts_in, settle, template};
use crate::machine::Parts;
use crate::replay::{How, Judged, POINTS_MIN, Sample, points, replay};
use crate::system::Revision;
use acceptance::power::disk::Disk;
use acceptance::power::medium::{Looked, Medium, Replay};
use acceptance::power::moments::Moments;

/// A disk that lies carries out one flush of so many.
const HONEST_ONE_OF: usize = 3;

fn setting(name: &str) -> Option<usize> {
    let named = std::env::var(name).ok();
    named.and_then(|text| text.parse().ok())
}

fn say(what: &str, judged: &Judged, since: Instant) {
    println!(
        "{what}: {} cut points in {:.1} s, {} with a torn end of the journal, {} with a torn superblock, {} violations",
        judged.points,
        since.elapsed().as_secs_f64(),
        judged.torn[0],
        judged.torn[1],
        judged.violations.len()
    );
    // One of each kind: what differs only in names and numbers is the same.
    let mut kinds: BTreeMap<String, (usize, &String)> = BTreeMap::new();
    for line in &judged.violations {
        let told = line
            .split_once("}: ")
            .map_or(line.as_str(), |(_, told)| told);
        let kind = told.replace(|letter: char| letter.is_ascii_hexdigit(), "");
        kinds.entry(kind).or_insert((0, line)).0 += 1;
    }
    for (count, line) in kinds.values().take(40) {
        println!("  {count} like {line}");
    }
}

/// Boots an image until it has settled: what runs must not be older than what was told, and nothing that was answered may be gone.
fn boot_sample(parts: &Parts, life: &Life, sample: &Sample) -> Vec<String> {
    let (at, from) = (sample.point.place, Instant::now());
    let mut machine = boot(parts, Disk::on(&sample.path));
    let running = settle(&mut machine);
    let seconds = from.elapsed().as_secs_f64();
    let (disk, _) = machine.cut(&mut Moments::from_seed(1));
    let medium = Medium::new(DISK_BYTES);
    medium.load_file(disk.path());
    let looked = medium.judge(Replay::Kernel, |tree| {
        inspect(tree, &life.ledger, at, When::Later)
    });
    let mut wrong = match looked {
        Err(why) => vec![why],
        Ok(Looked { mut found, .. }) => {
            let mut wrong = found.after(&sample.found);
            wrong.append(&mut found.violations);
            wrong
        }
    };
    let due = life.ledger.committed(at).map_or(0, |(_, one)| one.number);
    let known = life.ledger.revision(&running);
    if !known.is_some_and(|one| one.number >= due && !one.sick) {
        wrong.push(format!("{running} runs, u{due} was told to be done"));
    }
    println!(
        "booted {} at {:?}: {running} runs after {seconds:.1} s, {} violations",
        life.name,
        sample.point,
        wrong.len()
    );
    for line in &mut wrong {
        *line = format!("{} booted after {:?}: {line}", life.name, sample.point);
    }
    wrong
}

/// Boots all samples, two at a time.
fn boot_samples(shared: &Parts, lives: &[Life], samples: Vec<(usize, Sample)>) -> Vec<String> {
    let queue = Mutex::new(samples);
    let queue = &queue;
    let worker = |number: usize| {
        let parts = parts_in(shared, &format!("boots-{number}"), OPTIONS);
        let mut wrong = Vec::new();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some((life, sample)) = next else {
                return wrong;
            };
            wrong.extend(boot_sample(&parts, &lives[life], &sample));
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|number| scope.spawn(move || worker(number)))
            .collect();
        let done = workers.into_iter().map(|one| one.join());
        done.flat_map(|wrong| wrong.expect("a boot settles"))
            .collect()
    })
}

#[test]
fn every_cut_of_recorded_lives_leaves_a_device_that_runs() {
    acceptance::needs_containers!();
    let (manifest, image) = template();
    let images = [&image];
    let revision = Revision {
        name: "loop",
        manifest: &manifest,
        images: &images,
    };
    let Some((bench, _disk)) = bench(&[revision]) else {
        return;
    };
    let from = Instant::now();
    let mut moments = Moments::from_environment();
    let seeds = [moments.below(1 << 31), moments.below(1 << 31)];
    let made = (&manifest, &image);
    // Side by side.
    let lives: Vec<Life> = thread::scope(|scope| {
        let started = ["empty", "factory"]
            .into_iter()
            .zip(seeds)
            .map(|(name, seed)| {
                let parts = parts_in(&bench.parts, name, OPTIONS);
                scope.spawn(move || live(&parts, name == "factory", made, seed))
            });
        let started: Vec<_> = started.collect();
        let done = started.into_iter().map(|one| one.join());
        done.map(|life| life.expect("a life that is recorded is not judged yet"))
            .collect()
    });
    for life in &lives {
        println!(
            "{}: {} writes and flushes, {} promises; refused were {:#?}",
            life.name,
            life.recording.entries.len(),
            life.ledger.promises(),
            life.ledger.refused
        );
        assert_eq!(life.ledger.contradictions, [""; 0], "{}", life.name);
    }
    println!("recorded in {:.1} s", from.elapsed().as_secs_f64());
    let wanted = setting("CUT_POINTS");
    let boots = setting("CUT_BOOTS").unwrap_or(20);
    let mut count = 0;
    let images = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let mut samples = Vec::new();
    let mut violations = Vec::new();
    for (index, life) in lives.iter().enumerate() {
        let from = Instant::now();
        let share = wanted.map(|wanted| wanted / lives.len());
        let points = points(&life.recording, share, &mut moments);
        let how = How {
            honest_one_of: 1,
            samples: boots.div_ceil(lives.len()),
            folder: images.path(),
        };
        let mut judged = replay(life, &points, how);
        say(life.name, &judged, from);
        count += judged.points;
        violations.append(&mut judged.violations);
        samples.extend(judged.samples.into_iter().map(|sample| (index, sample)));
    }
    let least = lives.len() * POINTS_MIN;
    assert!(wanted.is_some() || count >= least, "only {count}");
    let from = Instant::now();
    let count = samples.len();
    violations.extend(boot_samples(&bench.parts, &lives, samples));
    println!(
        "{count} images booted in {:.1} s",
        from.elapsed().as_secs_f64()
    );
    let first: Vec<_> = violations.iter().take(50).map(String::as_str).collect();
    assert!(violations.is_empty(), "{}", first.join("\n"));

    // A disk that lies is noticed: by the same judges, on the same recording.
    let life = &lives[0];
    let from = Instant::now();
    let few = points(&life.recording, Some(400), &mut moments);
    let how = How {
        honest_one_of: HONEST_ONE_OF,
        samples: 0,
        folder: images.path(),
    };
    let judged = replay(life, &few, how);
    say("a disk that lies", &judged, from);
    assert!(!judged.violations.is_empty());
}
