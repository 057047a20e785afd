//! Cutting the power at places of a recording, and judging each image.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::invariants::{Findings, When, inspect};
use crate::ledger::Place;
use crate::life::{DISK_BYTES, Life};
use acceptance::power::medium::{Looked, Medium, Replay, Torn, coxswain_check};
use acceptance::power::moments::Moments;
use acceptance::power::record::{Entry, Fate, Player, Recording};

/// So many for a life when nothing else is said: a quick machine has few flushes in it.
pub(crate) const POINTS_MIN: usize = 2500;

/// A place where the power is cut, and what becomes of the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// Entries that had happened.
    pub(crate) place: Place,
    /// What becomes of the cache.
    pub(crate) fate: Fate,
    seed: u64,
}

/// An image that is to be booted.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Its file.
    pub(crate) path: PathBuf,
    /// Where the power was cut.
    pub(crate) point: Point,
    /// What was found on it.
    pub(crate) found: Findings,
}

/// What a replay came to.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// How many images were judged.
    pub(crate) points: usize,
    /// Images that the kernel refused until e2fsck had mended what a torn write is allowed to break: journal, superblock.
    pub(crate) torn: [usize; 2],
    /// What is wrong, each with its place.
    pub(crate) violations: Vec<String>,
    /// Images that were kept.
    pub(crate) samples: Vec<Sample>,
}

/// Places to cut at: at each flush with nothing of the cache kept, and between with mixtures: as many, or until there are enough.
/// When fewer are wanted than that, some flushes are left out.
pub(crate) fn points(
    recording: &Recording,
    wanted: Option<usize>,
    moments: &mut Moments,
) -> Vec<Point> {
    // From the place after a flush up to the next one with something to flush.
    let mut gaps: Vec<(Place, Place)> = Vec::new();
    let mut writes_since = 0;
    for (place, entry) in recording.entries.iter().enumerate() {
        match entry {
            Entry::Write { .. } => writes_since += 1,
            Entry::Flush | Entry::Cut(_) => {
                if writes_since > 0 {
                    gaps.push((place - writes_since + 1, place));
                }
                writes_since = 0;
            }
        }
    }
    let mut points: Vec<Point> = Vec::new();
    let mut add = |place: Place, fate: Fate, moments: &mut Moments| {
        let seed = moments.below(1 << 31);
        points.push(Point { place, fate, seed });
    };
    let wanted = wanted.unwrap_or((2 * gaps.len()).max(POINTS_MIN)).max(2);
    let step = (2 * gaps.len()).div_ceil(wanted).max(1);
    let gaps: Vec<_> = gaps.into_iter().step_by(step).collect();
    let count = gaps.len().max(1);
    let mixtures = wanted.saturating_sub(count);
    for (index, (first, last)) in gaps.iter().enumerate() {
        add(*last, Fate::Lost, moments);
        // As many as make the sum right.
        let share = (index + 1) * mixtures / count - index * mixtures / count;
        for number in 0..share {
            let fate = [Fate::Sectors, Fate::Writes, Fate::Kept][number % 3];
            let inside = moments.below((last - first) as u64 + 1);
            let place = first + usize::try_from(inside).expect("it is below a usize");
            add(place, fate, moments);
        }
    }
    points.sort_by_key(|point| point.place);
    points
}

/// One image: everything that is wrong with it.
fn judge(
    medium: &Medium,
    life: &Life,
    player: &Player<'_>,
    point: Point,
    keep: Option<&Path>,
) -> (Findings, Vec<String>, Option<Torn>) {
    let mut moments = Moments::from_seed(point.seed);
    let over = player.survivors(point.fate, &mut moments);
    medium.load(player.medium(), player.used(), &over);
    if let Some(path) = keep {
        // `fs::copy` would fill the holes.
        let copied = Command::new("cp")
            .arg("--sparse=always")
            .args([medium.path(), path])
            .status();
        assert!(copied.is_ok_and(|status| status.success()), "cp failed");
    }
    let replay = [Replay::Kernel, Replay::E2fsck][usize::from(moments.below(2) == 0)];
    let at = point.place;
    let looked = medium.judge(replay, |tree| {
        let found = inspect(tree, &life.ledger, at, When::AtOnce);
        // Before anything was committed there is nothing to boot.
        let mut wrong = Vec::new();
        if life.ledger.must_boot(at) || found.committed.is_some() {
            match coxswain_check(tree) {
                Ok(boots) if life.ledger.revision(&boots).is_some() => {}
                Ok(boots) => wrong.push(format!("coxswain check would boot {boots}")),
                Err(why) => wrong.push(why),
            }
        }
        (found, wrong)
    });
    match looked {
        Ok(Looked { found, torn }) => {
            let (mut found, mut wrong) = found;
            wrong.append(&mut found.violations);
            (found, wrong, torn)
        }
        Err(why) => (Findings::default(), vec![why], None),
    }
}

/// How a replay is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How<'a> {
    /// One flush of so many is carried out; 1 is an honest disk.
    pub(crate) honest_one_of: usize,
    /// So many images are kept.
    pub(crate) samples: usize,
    /// Where they are kept.
    pub(crate) folder: &'a Path,
}

/// Judges every point, on all processors.
pub(crate) fn replay(life: &Life, points: &[Point], how: How<'_>) -> Judged {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let share = points.len().div_ceil(workers).max(1);
    let results: Vec<Judged> = thread::scope(|scope| {
        let started: Vec<_> = points
            .chunks(share)
            .map(|part| {
                let how = How {
                    samples: how.samples.div_ceil(workers),
                    ..how
                };
                scope.spawn(move || replay_part(life, part, how))
            })
            .collect();
        let done = started.into_iter().map(|worker| worker.join());
        done.map(|judged| judged.expect("a worker does not panic"))
            .collect()
    });
    let mut all = Judged::default();
    for mut judged in results {
        all.points += judged.points;
        for (sum, one) in all.torn.iter_mut().zip(judged.torn) {
            *sum += one;
        }
        all.violations.append(&mut judged.violations);
        all.samples.append(&mut judged.samples);
    }
    all
}

fn replay_part(life: &Life, points: &[Point], how: How<'_>) -> Judged {
    let medium = Medium::new(DISK_BYTES);
    let honest = how.honest_one_of == 1;
    let player = Player::new(life.medium.clone(), &life.recording.entries);
    let mut player = player.lying(how.honest_one_of);
    let mut judged = Judged::default();
    let mut durable = Findings::default();
    let bootable: Vec<usize> = (0..points.len())
        .filter(|index| life.ledger.must_boot(points[*index].place))
        .collect();
    let every = (bootable.len() / how.samples.max(1)).max(1);
    for (index, point) in points.iter().enumerate() {
        player.go_to(point.place);
        let chosen = bootable.binary_search(&index);
        let kept = chosen.is_ok_and(|place| place % every == every / 2)
            && judged.samples.len() < how.samples;
        let path = how
            .folder
            .join(format!("{}-{}-{index}", life.name, point.place));
        let (found, mut wrong, torn) =
            judge(&medium, life, &player, *point, kept.then_some(&*path));
        judged.points += 1;
        match torn {
            None => {}
            Some(Torn::Journal) => judged.torn[0] += 1,
            Some(Torn::Superblock) => judged.torn[1] += 1,
        }
        // What is durable does not go back, and no mixture is behind it.
        if honest && !found.progress.is_empty() {
            wrong.extend(found.after(&durable));
        }
        judged.violations.extend(
            wrong
                .iter()
                .map(|line| format!("{} at {point:?}: {line}", life.name)),
        );
        if kept {
            judged.samples.push(Sample {
                path,
                point: *point,
                found,
            });
        } else if point.fate == Fate::Lost {
            durable = found;
        }
    }
    judged
}
