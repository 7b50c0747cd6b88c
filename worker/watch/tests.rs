//! What proves quiet, what does not, and when is asked.

use super::*;

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], 7000))
}

/// A watch on one gateway, and the clock.
struct Game {
    watch: Watch,
    now: Instant,
}

impl Game {
    fn new(gateway: SocketAddr) -> Self {
        let now = Instant::now();
        Self { watch: Watch::new(address(1), [gateway], 7, now), now }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn tick(&mut self, idle: bool) -> Option<Question> {
        let mut questions = Vec::new();
        self.watch.tick(self.now, idle, &mut questions);
        assert!(questions.len() < 2);
        questions.pop()
    }

    /// Passes time until a question is asked.
    fn next(&mut self, idle: bool) -> Question {
        for _ in 0..100 {
            if let Some(question) = self.tick(idle) {
                return question;
            }
            let next = self.watch.next_deadline(self.now).expect("it waits for something");
            assert!(next > self.now, "it would spin");
            self.now = next;
        }
        panic!("nothing is ever asked");
    }

    fn hear(&mut self, question: Question, heard: Heard) -> Option<QuietReason> {
        self.watch.answered(question, heard, self.now)
    }
}

#[test]
fn two_answers_of_zero_in_a_row_are_a_proof() {
    for gateway in [address(1), address(2)] {
        let mut game = Game::new(gateway);
        let first = game.next(true);
        assert_eq!((first.gateway, first.home), (gateway, gateway == address(1)));
        game.pass(Duration::from_millis(4));
        assert_eq!(game.hear(first, Heard::Active(0)), None);
        let asked_after = game.now;
        let second = game.next(true);
        assert!(game.now - asked_after >= Duration::from_millis(8), "twice the round trip");
        assert_eq!(game.hear(second, Heard::Active(0)), Some(QuietReason::Drained));
        assert_eq!(game.tick(true), None);
        assert!(!game.watch.holds(game.now));
        assert_eq!(game.watch.next_deadline(game.now), None);
    }
}

#[test]
fn an_active_request_between_begins_the_proof_anew() {
    for gateway in [address(1), address(2)] {
        let mut game = Game::new(gateway);
        let first = game.next(true);
        assert_eq!(game.hear(first, Heard::Active(0)), None);
        let second = game.next(true);
        assert_eq!(game.hear(second, Heard::Active(1)), None);
        let third = game.next(true);
        assert_eq!(game.hear(third, Heard::Active(0)), None, "the first of a new pair");
        let fourth = game.next(true);
        assert_eq!(game.hear(fourth, Heard::Active(0)), Some(QuietReason::Drained));
    }
}

#[test]
fn only_another_gateway_that_refuses_is_gone() {
    let mut game = Game::new(address(2));
    let question = game.next(true);
    assert_eq!(game.hear(question, Heard::Lost(LostReason::Unreachable)), None);
    let question = game.next(true);
    assert_eq!(game.hear(question, Heard::Nonsense), None);
    let question = game.next(true);
    let gone = game.hear(question, Heard::Lost(LostReason::Refused));
    assert_eq!(gone, Some(QuietReason::Gone));
    let mut home = Game::new(address(1));
    let question = home.next(true);
    assert_eq!(home.hear(question, Heard::Lost(LostReason::Refused)), None);
}

/// Requests are held back for the opening and in windows, and never for longer.
#[test]
fn a_window_ends_though_nothing_comes() {
    let mut game = Game::new(address(1));
    assert!(game.watch.is_opening(game.now) && game.watch.holds(game.now));
    game.pass(OPENING_MAX);
    assert!(!game.watch.is_opening(game.now));
    assert_eq!(game.tick(false), None);
    assert!(game.watch.holds(game.now), "what is on the wire is waited for");
    game.pass(EMPTYING_MAX);
    assert_eq!(game.tick(false), None);
    assert!(!game.watch.holds(game.now));
    let question = game.next(true);
    assert!(game.watch.holds(game.now));
    game.pass(HOME_ANSWER_MAX);
    assert_eq!(game.tick(true), None);
    assert!(!game.watch.holds(game.now), "no answer");
    assert_eq!(game.hear(question, Heard::Active(0)), None, "too late");
    assert!(!game.watch.holds(game.now));
}

/// The sheep is far, or busy, and alive: its proof comes in the end, and I/O is held back for
/// a small part of the time.
#[test]
fn a_sheep_that_answers_slowly_is_waited_for_longer_each_time() {
    let takes = Duration::from_millis(150);
    let mut game = Game::new(address(1));
    let begun = game.now;
    let (mut held, mut windows) = (Duration::ZERO, 0);
    let quiet = loop {
        let question = game.next(true);
        windows += 1;
        let asked = game.now;
        while game.watch.holds(game.now) && game.now < asked + takes {
            game.pass(Duration::from_millis(5));
            assert_eq!(game.tick(true), None);
        }
        held += game.now - asked;
        game.now = game.now.max(asked + takes);
        if let Some(quiet) = game.hear(question, Heard::Active(0)) {
            break quiet;
        }
        assert!(windows < 10, "no proof");
    };
    assert_eq!(quiet, QuietReason::Drained);
    let took = game.now - begun;
    assert!(
        took < Duration::from_secs(3) && held < Duration::from_millis(500),
        "{took:?} {held:?}"
    );
}

/// But for the first try, which a dead one refuses at once.
#[test]
fn another_gateway_is_waited_for_once_and_not_long() {
    let mut game = Game::new(address(2));
    let question = game.next(false);
    assert!(game.watch.is_opening(game.now));
    assert_eq!(game.hear(question, Heard::Active(1)), None);
    assert!(!game.watch.is_opening(game.now) && !game.watch.holds(game.now));
    let mut silent = Game::new(address(2));
    silent.next(false);
    silent.pass(OPENING_MAX);
    assert!(!silent.watch.is_opening(silent.now) && !silent.watch.holds(silent.now));
}

#[test]
fn tries_become_rarer() {
    for (gateway, rest) in [(address(1), HOME_REST), (address(2), OTHER_REST)] {
        let mut game = Game::new(gateway);
        game.pass(OPENING_MAX);
        let mut last = game.now;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let question = game.next(true);
            pauses.push(game.now - last);
            last = game.now;
            assert_eq!(game.hear(question, Heard::Active(3)), None);
        }
        assert!(pauses[1] >= rest[0] && pauses[1] < rest[1], "{pauses:?}");
        let longest = *pauses.last().unwrap();
        assert!(longest >= rest[1] && longest <= rest[1] * 5 / 4, "{pauses:?}");
    }
}

/// Absence proves something of a node that was there under that address only.
#[test]
fn a_member_that_left_is_quiet_and_a_stranger_is_not() {
    let mut game = Game::new(address(2));
    assert!(members(&mut game, &[address(1)]).is_empty());
    assert!(members(&mut game, &[address(1), address(2)]).is_empty());
    assert_eq!(members(&mut game, &[address(1)]), [address(2)]);
    assert_eq!(game.watch.next_deadline(game.now), None);
}

/// Nobody is known by another address than the list has.
fn members(game: &mut Game, nodes: &[SocketAddr]) -> Vec<SocketAddr> {
    let listed = |asked| nodes.contains(&asked).then_some(asked);
    game.watch.members(nodes, Some(address(1)), listed)
}

/// Its counter counts what this session asks: a window is needed.
#[test]
fn the_sheep_of_this_session_is_known_by_any_address() {
    let mut game = Game::new(address(9));
    let before = game.next(false);
    assert!(!before.home && !game.watch.holds(game.now + OPENING_MAX));
    let gone = game.watch.members(&[address(1)], Some(address(1)), |_| Some(address(1)));
    assert!(gone.is_empty());
    assert_eq!(game.watch.listed().collect::<Vec<_>>(), [(address(9), address(1))]);
    assert_eq!(game.hear(before, Heard::Active(0)), None);
    let first = game.next(true);
    assert_eq!((first.gateway, first.home), (address(9), true));
    assert!(game.watch.holds(game.now));
    assert_eq!(game.hear(first, Heard::Active(0)), None);
    let second = game.next(true);
    assert_eq!(game.hear(second, Heard::Active(0)), Some(QuietReason::Drained));
}

#[test]
fn one_that_left_is_quiet_under_the_address_that_was_asked() {
    let mut game = Game::new(address(9));
    let both = [address(1), address(2)];
    let of = |asked| (asked == address(9)).then_some(address(2));
    assert!(game.watch.members(&both, Some(address(1)), of).is_empty());
    // Whom it is taken for by now does not count.
    let gone = game.watch.members(&both[..1], Some(address(1)), |_| Some(address(1)));
    assert_eq!(gone, [address(9)]);
}

/// The fences of gateways that are not watched end by time alone.
#[test]
fn with_more_gateways_than_can_be_watched_only_time_tells() {
    let (now, mut questions) = (Instant::now(), Vec::new());
    let port = |number| u16::try_from(1000 + number).unwrap();
    let others = |count| (0..count).map(move |n| SocketAddr::from(([127, 0, 0, 2], port(n))));
    for (count, expected) in [(WATCHED_MAX - 1, true), (WATCHED_MAX, false)] {
        let mut watch = Watch::new(address(1), others(count), 7, now);
        assert!(!watch.is_over(now));
        watch.tick(now, true, &mut questions);
        for question in questions.drain(..) {
            watch.answered(question, Heard::Lost(LostReason::Refused), now);
        }
        assert!(watch.is_empty());
        assert_eq!(watch.is_over(now), expected);
        assert!(watch.is_over(now + WATCH_MAX));
        let wakes = watch.next_deadline(now) == Some(now + WATCH_MAX);
        assert_ne!(wakes, expected);
    }
}
