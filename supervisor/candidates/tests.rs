//! Who is tried after whom.

use super::*;

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn candidates(configured: &[u16], members: &[u16]) -> Candidates {
    let mut new = Candidates::several(configured.iter().copied().map(address)).unwrap();
    new.learn(members.iter().copied().map(address).collect());
    new
}

/// The ports of the round that was begun, in order.
fn round(candidates: &mut Candidates) -> Vec<u16> {
    let mut tried = vec![candidates.current().port()];
    while candidates.advance() {
        tried.push(candidates.current().port());
    }
    tried
}

#[test]
fn all_are_tried_in_turn_and_none_twice() {
    let mut candidates = candidates(&[1, 2, 1, 3, 2], &[]);
    assert_eq!(round(&mut candidates), [1, 2, 3]);
    assert_eq!(round(&mut candidates), [1, 2, 3]);
    assert_eq!(candidates.rounds_in_vain(), 2);
    assert_eq!(Candidates::several([]), None);
    assert!(!Candidates::one(address(1)).advance());
}

#[test]
fn the_cause_says_whether_the_same_one_comes_first_or_last() {
    let mut candidates = candidates(&[1], &[1, 2]);
    candidates.begin(Order::SameFirst);
    assert_eq!(round(&mut candidates), [1, 2]);
    candidates.begin(Order::SameLast);
    assert_eq!(round(&mut candidates), [2, 1]);
    assert_eq!(candidates.count(), 2);
}

#[test]
fn the_configured_one_comes_before_other_nodes() {
    let mut candidates = candidates(&[1], &[2, 3]);
    candidates.prefer(address(3));
    candidates.begin(Order::SameLast);
    assert_eq!(round(&mut candidates), [1, 2, 3]);
}

#[test]
fn other_nodes_come_in_a_turn_that_begins_anywhere() {
    let nodes: Vec<u16> = (1..=8).collect();
    let mut firsts = std::collections::BTreeSet::new();
    for seed in 1..100 {
        let mut candidates = candidates(&[1], &nodes).with_dice(Dice::new(seed << 20));
        candidates.begin(Order::SameLast);
        let mut tried = round(&mut candidates);
        firsts.insert(tried[0]);
        tried.sort_unstable();
        assert_eq!(tried, nodes);
    }
    assert_eq!(firsts.len(), 7, "{firsts:?}");
}

#[test]
fn a_preferred_one_comes_before_the_one_that_was_left_for_it() {
    let mut candidates = candidates(&[1, 2], &[3]);
    candidates.prefer(address(9));
    assert_eq!(round(&mut candidates), [9, 1, 2, 3]);
    candidates.prefer(address(1));
    assert_eq!(round(&mut candidates), [1, 2, 3]);
}

#[test]
fn an_adopted_one_is_the_configured_one() {
    let mut candidates = candidates(&[1], &[1, 3]);
    candidates.prefer(address(3));
    candidates.adopt(false);
    candidates.begin(Order::SameFirst);
    assert_eq!(round(&mut candidates), [3, 1]);
    candidates.prefer(address(9));
    candidates.adopt(true);
    candidates.begin(Order::SameFirst);
    assert_eq!(round(&mut candidates), [9]);
}

#[test]
fn pauses_double_up_to_two_seconds_with_chance_and_are_short_again_in_calm() {
    let mut candidates = Candidates::one(address(1));
    for ms in [100, 200, 400, 800, 1600, 2000, 2000] {
        let pause = candidates.pause().as_millis();
        assert!((ms / 2..ms * 3 / 2).contains(&pause), "{pause} ms, not about {ms}");
    }
    candidates.calm();
    assert!(candidates.pause() < PAUSE_MIN * 3 / 2);
}

#[test]
fn nonsense_is_not_learnt() {
    let mut candidates = candidates(&[1], &[0, 2, 2, 1]);
    assert_eq!(candidates.count(), 2);
    candidates.learn(vec!["0.0.0.0:7000".parse().unwrap(), "224.0.0.1:7000".parse().unwrap()]);
    assert_eq!(candidates.count(), 1);
    candidates.learn((1..=2000).map(address).collect());
    assert_eq!(candidates.count(), MEMBERS_MAX);
}

#[test]
fn odd_addresses_are_noticed() {
    for odd in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1"] {
        assert!(oddity(odd.parse().unwrap()).is_some(), "{odd}");
    }
    for usual in ["127.0.0.1", "::1", "10.0.0.1"] {
        assert_eq!(oddity(usual.parse().unwrap()), None, "{usual}");
    }
}

#[test]
fn an_ip_address_needs_no_resolver() {
    let address: SheepAddress = "::1".parse().unwrap();
    assert_eq!(look_up(&address, 7001).unwrap(), ["[::1]:7001".parse().unwrap()]);
}
