//! Deaths that a cluster has noticed, or not.

use super::*;

fn node(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A session that left those gateways, which were asked: so many of the first are dead.
fn asked(left: &[u16], dead: usize, now: Instant) -> Departure {
    let mut departure = Departure::new(left.iter().copied().map(node), now);
    assert!(departure.holds());
    assert_eq!(departure.tick(now), Ask::Left(left.iter().copied().map(node).collect()));
    answer(&mut departure, left, dead, now);
    departure
}

fn answer(departure: &mut Departure, left: &[u16], dead: usize, now: Instant) {
    for (place, port) in left.iter().enumerate() {
        assert!(departure.holds(), "one has not answered");
        departure.answered(node(*port), place < dead, now);
    }
}

/// What a look at the node list leads to.
fn look(departure: &mut Departure, epoch: u32, nodes: &[u16], now: &mut Instant) -> Ask {
    *now += LOOK_INTERVAL;
    assert_eq!(departure.tick(*now), Ask::Members);
    assert_eq!(departure.tick(*now), Ask::Nothing, "one look at a time");
    let nodes: Vec<_> = nodes.iter().copied().map(node).collect();
    departure.listed(Some((epoch, &nodes)), *now)
}

fn settles(departure: &mut Departure, now: Instant) {
    assert!(departure.holds());
    assert_eq!(departure.next_deadline(), Some(now + SETTLING));
    departure.tick(now + SETTLING);
    assert!(!departure.holds() && departure.next_deadline().is_none());
}

#[test]
fn nothing_waits_when_no_session_was_lost() {
    assert!(!Departure::new([], Instant::now()).holds());
}

/// The usual case, as when a worker is killed: the node list is not even needed.
#[test]
fn when_all_live_or_hang_changes_go_when_the_last_one_has_answered() {
    let departure = asked(&[1, 2, 3], 0, Instant::now());
    assert!(!departure.holds() && departure.next_deadline().is_none());
}

#[test]
fn one_that_no_list_had_is_not_waited_for() {
    for list in [None, Some((7, &[node(2)][..]))] {
        let now = Instant::now();
        let mut departure = asked(&[1], 1, now);
        assert!(departure.holds());
        assert_eq!(departure.tick(now), Ask::Members);
        assert_eq!(departure.listed(list, now), Ask::Nothing);
        assert!(!departure.holds() && departure.next_deadline().is_none());
    }
}

/// The worker and a gateway besides its sheep died.
#[test]
fn changes_wait_until_the_cluster_knows_of_a_death() {
    let mut now = Instant::now();
    let mut departure = asked(&[1, 2], 1, now);
    assert_eq!(look(&mut departure, 7, &[1, 2, 3], &mut now), Ask::Nothing);
    assert_eq!(look(&mut departure, 7, &[1, 2, 3], &mut now), Ask::Nothing);
    assert_eq!(look(&mut departure, 8, &[2, 3], &mut now), Ask::Nothing);
    settles(&mut departure, now);
}

/// It was listed while others had not answered yet, and is not when it is looked at.
#[test]
fn a_list_that_came_before_the_answers_counts() {
    let now = Instant::now();
    let mut departure = Departure::new([node(1), node(2)], now);
    departure.tick(now);
    departure.listed(Some((7, &[node(1), node(2), node(3)])), now);
    departure.answered(node(1), true, now);
    departure.answered(node(2), false, now);
    assert_eq!(departure.tick(now), Ask::Members);
    departure.listed(Some((8, &[node(2), node(3)])), now);
    settles(&mut departure, now);
}

/// Two died together, and the cluster notices one after the other.
#[test]
fn the_death_of_one_says_nothing_of_another() {
    let mut now = Instant::now();
    let mut departure = asked(&[1, 2, 3], 2, now);
    assert_eq!(look(&mut departure, 7, &[1, 2, 3, 4], &mut now), Ask::Nothing);
    assert_eq!(look(&mut departure, 8, &[2, 3, 4], &mut now), Ask::Left(vec![node(2)]));
    answer(&mut departure, &[2], 1, now);
    for _ in 0..3 {
        assert_eq!(look(&mut departure, 8, &[2, 3, 4], &mut now), Ask::Nothing);
        assert!(departure.holds());
    }
    assert_eq!(look(&mut departure, 9, &[3, 4], &mut now), Ask::Nothing);
    settles(&mut departure, now);
}

/// It was counted out and came back between two looks.
#[test]
fn one_that_was_started_anew_is_not_waited_for() {
    let mut now = Instant::now();
    let mut departure = asked(&[1], 1, now);
    assert_eq!(look(&mut departure, 7, &[1, 2], &mut now), Ask::Nothing);
    assert_eq!(look(&mut departure, 9, &[1, 2], &mut now), Ask::Left(vec![node(1)]));
    answer(&mut departure, &[1], 0, now);
    settles(&mut departure, now);
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    let now = Instant::now();
    let mut departure = Departure::new([node(1)], now);
    departure.tick(now);
    departure.answered(node(2), true, now);
    assert!(departure.holds());
    departure.answered(node(1), false, now);
    departure.answered(node(1), true, now);
    assert!(!departure.holds());
}

#[test]
fn nobody_is_waited_for_for_ever() {
    let now = Instant::now();
    let mut departure = asked(&[1, 2], 2, now);
    departure.listed(Some((7, &[node(1), node(2)])), now);
    departure.tick(now + HOLD_MAX);
    assert!(!departure.holds());
    let mut departure = Departure::new([node(1)], now);
    departure.tick(now);
    departure.tick(now + HOLD_MAX);
    assert!(!departure.holds());
}
