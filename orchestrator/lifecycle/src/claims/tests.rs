//! A table of who may what, then any order of acts against a model that keeps only what the promises need.

use proptest::prelude::*;

use super::*;

fn client(text: &str) -> Client {
    text.parse().unwrap()
}

fn parts(text: &str) -> BTreeSet<Part> {
    text.split(' ').map(|part| part.parse().unwrap()).collect()
}

fn wanted(text: &str, priority: u64, lease_s: u64) -> Wanted {
    Wanted::new(parts(text), priority, lease_s).unwrap()
}

fn container(name: &str, groups: &[&str]) -> Touch {
    Touch::Container {
        name: name.parse().unwrap(),
        groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
    }
}

fn group(name: &str) -> Touch {
    Touch::Group(name.parse().unwrap())
}

/// `web` and `db` are in group `app`, `log` in `root`.
fn members() -> Members {
    [("web", "app"), ("db", "app"), ("log", "root")]
        .into_iter()
        .map(|(name, group)| (name.parse().unwrap(), group.parse().unwrap()))
        .collect()
}

fn at(seconds: u64) -> Instant {
    Instant(seconds * 1000)
}

#[test]
fn what_a_claim_covers() {
    let touches = || {
        [
            Touch::Bsp,
            container("web", &["app"]),
            container("log", &["root"]),
            container("moved", &["app", "root"]),
            container("new", &["app"]),
            group("app"),
            Touch::Rest,
        ]
    };
    for (claimed, expected) in [
        ("*", [true, true, true, true, true, true, true]),
        ("bsp", [true, false, false, false, false, false, false]),
        (
            "container:web",
            [false, true, false, false, false, false, false],
        ),
        ("group:app", [false, true, false, true, true, true, false]),
        (
            "group:root",
            [false, false, true, true, false, false, false],
        ),
        (
            "bsp container:log",
            [true, false, true, false, false, false, false],
        ),
        ("container:app group:web", [false; 7]),
    ] {
        let mut claims = Claims::default();
        let (owner, other) = (client("container:a"), client("container:b"));
        claims
            .claim(at(0), &owner, wanted(claimed, 10, 60), &members())
            .unwrap();
        for (touch, expected) in touches().into_iter().zip(expected) {
            let touched = BTreeSet::from([touch.clone()]);
            assert_eq!(claims.refuses(at(1), &owner, &touched), None);
            let refused = claims.refuses(at(1), &other, &touched);
            assert_eq!(refused.is_some(), expected, "{claimed}: {touch:?}");
            if let Some(conflict) = refused {
                assert_eq!(conflict.claim.client, owner);
                assert_eq!(conflict.left, Duration::from_secs(59));
                assert_eq!(conflict.what, touch.to_string());
            }
        }
    }
}

#[test]
fn who_gets_what_somebody_else_has() {
    for (held, wanted_parts, priority, granted) in [
        ("*", "bsp", 10, false),
        ("*", "bsp", 11, true),
        ("bsp", "*", 10, false),
        ("bsp", "*", 11, true),
        ("container:web", "container:db", 0, true),
        ("container:web", "container:web", 10, false),
        ("container:web", "container:db container:web", 10, false),
        ("group:app", "container:web", 10, false),
        ("group:app", "container:web", 11, true),
        ("container:web", "group:app", 10, false),
        ("container:web", "group:root", 0, true),
        ("group:app", "group:root", 0, true),
        // Not in the running revision: nobody's member.
        ("group:app", "container:later", 0, true),
    ] {
        let mut claims = Claims::default();
        let (one, two) = (client("host:a"), client("host:b"));
        let first = claims.claim(at(0), &one, wanted(held, 10, 60), &members());
        let first = first.unwrap().id;
        let second = claims.claim(at(1), &two, wanted(wanted_parts, priority, 60), &members());
        assert_eq!(
            second.is_ok(),
            granted,
            "{held} then {wanted_parts} {priority}"
        );
        match second {
            Ok(granted) => {
                let overlaps = overlap(&parts(held), &parts(wanted_parts), &members()).is_some();
                let expected = overlaps.then_some((first, granted.id));
                assert_eq!(
                    claims.overruled(&members()),
                    expected.into_iter().collect(),
                    "{held} then {wanted_parts}"
                );
            }
            Err(Refused::Taken(conflict)) => assert_eq!(conflict.claim.id, first),
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_is_overruled_keeps_the_rest_and_gets_back_what_it_lost() {
    let mut claims = Claims::default();
    let (low, high) = (client("container:low"), client("container:high"));
    let members = members();
    let low_id = claims.claim(at(0), &low, wanted("*", 10, 600), &members);
    let low_id = low_id.unwrap().id;
    let high_id = claims.claim(at(1), &high, wanted("container:web", 20, 60), &members);
    let high_id = high_id.unwrap().id;
    let web = BTreeSet::from([container("web", &["app"])]);
    let db = BTreeSet::from([container("db", &["app"])]);
    let both: BTreeSet<_> = web.union(&db).cloned().collect();
    let may = |claims: &Claims, who: &Client, what: &BTreeSet<Touch>| {
        claims.refuses(at(2), who, what).is_none()
    };
    assert!(may(&claims, &high, &web));
    assert!(!may(&claims, &low, &web));
    assert!(may(&claims, &low, &db));
    assert!(!may(&claims, &high, &db));
    // A change of both is nobody's.
    assert!(!may(&claims, &low, &both));
    assert!(!may(&claims, &high, &both));
    // Renewing does not bring it back, the end of the other one does.
    assert!(claims.renew(at(3), &low, low_id, None).is_ok());
    assert!(!may(&claims, &low, &web));
    assert_eq!(
        claims.overruled(&members),
        BTreeMap::from([(low_id, high_id)])
    );
    assert_eq!(claims.expire(at(60)).len(), 0);
    assert_eq!(claims.expire(at(61))[0].id, high_id);
    assert!(may(&claims, &low, &both));
    assert_eq!(claims.overruled(&members), BTreeMap::new());
}

#[test]
fn only_the_owner_renews_and_a_person_may_release() {
    let mut claims = Claims::default();
    let (one, two) = (client("host:a"), client("container:b"));
    let id = claims.claim(at(0), &one, wanted("bsp", 0, 60), &members());
    let id = id.unwrap().id;
    let not_yours = Refused::NotYours {
        id,
        client: one.clone(),
    };
    assert_eq!(claims.renew(at(1), &two, id, None), Err(not_yours.clone()));
    assert_eq!(
        claims.renew(at(1), &Client::Host, id, None),
        Err(not_yours.clone())
    );
    assert_eq!(claims.release(&two, id), Err(not_yours));
    assert_eq!(
        claims.renew(at(1), &one, id + 1, None),
        Err(Refused::NoSuch(id + 1))
    );
    assert_eq!(claims.release(&Client::Host, id).unwrap().client, one);
    assert_eq!(claims.release(&one, id), Err(Refused::NoSuch(id)));
    // Numbers are not used again.
    let next = claims.claim(at(2), &one, wanted("bsp", 0, 60), &members());
    assert_eq!(next.unwrap().id, id + 1);
}

#[test]
fn the_same_parts_of_the_same_client_are_the_same_claim() {
    let mut claims = Claims::default();
    let one = client("host:a");
    let first = claims.claim(at(0), &one, wanted("bsp", 5, 60), &members());
    let again = claims.claim(at(30), &one, wanted("bsp", 5, 60), &members());
    let (first, again) = (first.unwrap(), again.unwrap());
    assert_eq!((first.changed, again.changed), (true, false));
    assert_eq!(first.id, again.id);
    assert_eq!(claims.next_expiry(), Some(at(90)));
    let other = claims.claim(at(30), &one, wanted("bsp", 6, 60), &members());
    assert!(other.unwrap().changed);
    assert_eq!(claims.held().count(), 1);
}

#[test]
fn there_are_only_so_many() {
    let mut claims = Claims::default();
    let claim = |claims: &mut Claims, who: usize, what: usize| {
        let parts = format!("container:c{who}-{what}");
        claims.claim(
            at(0),
            &client(&format!("host:p{who}")),
            wanted(&parts, 0, 60),
            &members(),
        )
    };
    for what in 0..CLAIMS_OF_CLIENT_MAX {
        assert!(claim(&mut claims, 0, what).is_ok());
    }
    assert!(matches!(claim(&mut claims, 0, 99), Err(Refused::Limit(_))));
    // What it has can still be claimed again.
    assert!(claim(&mut claims, 0, 0).is_ok());
    for number in CLAIMS_OF_CLIENT_MAX..CLAIMS_MAX {
        assert!(claim(&mut claims, 1 + number / 8, number).is_ok());
    }
    assert!(matches!(claim(&mut claims, 90, 0), Err(Refused::Limit(_))));
    assert_eq!(claims.held().count(), CLAIMS_MAX);
}

#[test]
fn a_start_gives_every_lease_anew_but_only_once() {
    let mut claims = Claims::default();
    let one = client("host:a");
    let members = members();
    claims
        .claim(at(0), &one, wanted("bsp", 5, 60), &members)
        .unwrap();
    claims
        .claim(at(0), &one, wanted("group:app", 5, 600), &members)
        .unwrap();
    let (mut claims, dropped) = Claims::restore(at(7), claims.keep());
    assert_eq!(dropped, []);
    assert_eq!(claims.next_expiry(), Some(at(67)));
    // Only one is renewed before the next start; that it was renewed is kept.
    assert!(claims.renew(at(8), &one, 2, None).unwrap().changed);
    assert!(!claims.renew(at(9), &one, 2, None).unwrap().changed);
    let (claims, dropped) = Claims::restore(at(1), claims.keep());
    assert_eq!(
        dropped.iter().map(|claim| claim.id).collect::<Vec<_>>(),
        [1]
    );
    assert_eq!(claims.next_expiry(), Some(at(601)));
    let (mut claims, dropped) = Claims::restore(at(1), claims.keep());
    assert_eq!(dropped.len(), 1);
    let third = claims.claim(at(2), &one, wanted("bsp", 5, 60), &members);
    assert_eq!(third.unwrap().id, 3);
}

#[derive(Debug, Clone)]
enum Act {
    Claim(u8, BTreeSet<Part>, u16, u32),
    Renew(u8, u64),
    Release(u8, u64),
    Wait(u64),
    Restart,
}

fn some_parts() -> impl Strategy<Value = BTreeSet<Part>> {
    let all = [
        "*",
        "bsp",
        "container:web",
        "container:db",
        "container:log",
        "group:app",
        "group:root",
    ];
    proptest::collection::btree_set(
        proptest::sample::select(all.to_vec()).prop_map(|part| part.parse().unwrap()),
        1..4,
    )
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0u8..4, some_parts(), 0u16..4, 5u32..60).prop_map(|(who, parts, priority, lease)| {
            Act::Claim(who, parts, priority, lease)
        }),
        2 => (0u8..4, 1u64..12).prop_map(|(who, id)| Act::Renew(who, id)),
        1 => (0u8..4, 1u64..12).prop_map(|(who, id)| Act::Release(who, id)),
        2 => (0u64..40).prop_map(Act::Wait),
        1 => Just(Act::Restart),
    ];
    proptest::collection::vec(act, 1..60)
}

fn who(number: u8) -> Client {
    // 0 is a person, who may release what he does not hold.
    match number {
        0 => Client::Host,
        number => client(&format!("container:c{number}")),
    }
}

/// Every change that could be asked for here.
fn changes() -> Vec<Touch> {
    vec![
        Touch::Bsp,
        container("web", &["app"]),
        container("db", &["app"]),
        container("log", &["root"]),
        group("app"),
        group("root"),
        Touch::Rest,
    ]
}

fn may(claims: &Claims, now: Instant, touch: &Touch) -> Vec<Client> {
    let touched = BTreeSet::from([touch.clone()]);
    (0..5)
        .map(who)
        .filter(|who| claims.refuses(now, who, &touched).is_none())
        .collect()
}

proptest! {
    #[test]
    fn promises_hold_in_any_order(acts in acts()) {
        let members = members();
        let mut claims = Claims::default();
        let mut now = at(1000);
        // What was promised: until when each claim holds at least, whose it is, what it is for.
        let mut promised: BTreeMap<u64, (Instant, Claim)> = BTreeMap::new();
        for act in acts {
            match act {
                Act::Claim(number, parts, priority, lease_s) => {
                    let client = who(number);
                    let wanted = Wanted::new(parts, priority.into(), lease_s.into()).unwrap();
                    let before = claims.clone();
                    match claims.claim(now, &client, wanted.clone(), &members) {
                        Ok(granted) => {
                            let held = claims.get(granted.id).unwrap();
                            prop_assert_eq!(held.expires, now + Duration::from_secs(lease_s.into()));
                            promised.insert(granted.id, (held.expires, held.claim.clone()));
                            // Who is granted something has it now.
                            for touch in changes().iter().filter(|t| covers(&wanted.parts, t)) {
                                prop_assert_eq!(may(&claims, now, touch), vec![client.clone()]);
                            }
                        }
                        Err(Refused::Taken(conflict)) => {
                            prop_assert_eq!(&before, &claims);
                            prop_assert_ne!(&conflict.claim.client, &client);
                            prop_assert!(conflict.claim.priority >= priority);
                            prop_assert!(conflict.left > Duration::ZERO);
                        }
                        Err(other) => prop_assert!(matches!(other, Refused::Limit(_)), "{other:?}"),
                    }
                }
                Act::Renew(number, id) => match claims.renew(now, &who(number), id, None) {
                    Ok(_) => {
                        let held = claims.get(id).unwrap();
                        prop_assert_eq!(&held.claim.client, &who(number));
                        promised.insert(id, (held.expires, held.claim.clone()));
                    }
                    Err(Refused::NoSuch(_)) => prop_assert!(claims.get(id).is_none()),
                    Err(other) => prop_assert!(matches!(other, Refused::NotYours { .. }), "{other:?}"),
                },
                Act::Release(number, id) => {
                    if let Ok(claim) = claims.release(&who(number), id) {
                        prop_assert!(number == 0 || claim.client == who(number));
                        promised.remove(&id);
                    }
                }
                Act::Wait(seconds) => {
                    now = now + Duration::from_secs(seconds);
                    for ended in claims.expire(now) {
                        let (until, _) = promised.remove(&ended.id).unwrap();
                        prop_assert!(until <= now, "{} ended early", ended.id);
                    }
                }
                Act::Restart => {
                    let (restored, dropped) = Claims::restore(now, claims.keep());
                    for claim in dropped {
                        prop_assert!(!claim.renewed);
                        promised.remove(&claim.id);
                    }
                    claims = restored;
                    for (id, (until, _)) in &mut promised {
                        let expires = claims.get(*id).map(|held| held.expires);
                        prop_assert!(expires >= Some(*until), "{id} holds shorter than promised");
                        *until = expires.unwrap_or(*until);
                    }
                }
            }
            // Exactly what was promised holds, and nothing is anybody's for ever.
            let held: Vec<u64> = claims.held().map(|held| held.claim.id).collect();
            prop_assert_eq!(held, promised.keys().copied().collect::<Vec<_>>());
            prop_assert_eq!(claims.next_expiry(), promised.values().map(|(until, _)| *until).min());
            // A change is open to all, or to one.
            for touch in changes() {
                let covered = promised.values().any(|(_, claim)| covers(&claim.parts, &touch));
                let may = may(&claims, now, &touch);
                prop_assert_eq!(may.len(), if covered { 1 } else { 5 }, "{:?}: {:?}", touch, may);
            }
            // Who is overruled may not write all that he claimed.
            for (loser, winner) in claims.overruled(&members) {
                let (loser, winner) = (claims.get(loser).unwrap(), claims.get(winner).unwrap());
                prop_assert_ne!(&loser.claim.client, &winner.claim.client);
                prop_assert!(winner.claim.priority >= loser.claim.priority);
            }
        }
    }

    #[test]
    fn what_is_kept_reads_back(acts in acts()) {
        let members = members();
        let mut claims = Claims::default();
        for act in acts {
            if let Act::Claim(number, parts, priority, lease_s) = act {
                let wanted = Wanted::new(parts, priority.into(), lease_s.into()).unwrap();
                claims.claim(at(0), &who(number), wanted, &members).ok();
            }
        }
        let kept = claims.keep();
        let (restored, dropped) = Claims::restore(at(0), kept.clone());
        prop_assert!(dropped.is_empty());
        let mut again = restored.keep();
        for claim in &mut again.claims {
            claim.renewed = true;
        }
        prop_assert_eq!(again, kept);
    }
}
