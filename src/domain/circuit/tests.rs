//! What becomes of a circuit by what its receiver does.

use super::super::attempt::{Attempt, ErrorClass, Trigger};
use super::super::delivery::Sending;
use super::*;

fn at(seconds: u32) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + Duration::from_secs(seconds.into())
}

fn attempt(error: Option<ErrorClass>) -> Attempt {
    Attempt {
        at: at(0),
        duration: Duration::ZERO,
        trigger: Trigger::Schedule,
        status: None,
        error,
        response_headers: Vec::new(),
        response_excerpt: String::new(),
    }
}

/// Outcomes in a row: `+` taken, `-` refused, `?` ours; in capitals (`P`, `N`, `U`) of a probe, which
/// `0` was not sent; `a` and `r` taken and refused of what somebody asked for.
fn tally(outcomes: &str) -> Tally {
    let mut tally = Tally::default();
    for outcome in outcomes.chars() {
        let error = match outcome {
            '+' | 'P' | 'a' => None,
            '-' | 'N' | 'r' => Some(ErrorClass::HttpStatus),
            _ => Some(ErrorClass::Internal),
        };
        let sending = match outcome {
            'P' | 'N' | 'U' | '0' => Sending::Probe,
            'a' | 'r' => Sending::Asked,
            _ => Sending::Usual,
        };
        let attempt = attempt(error);
        tally.add((outcome != '0').then_some(&attempt), sending);
    }
    tally
}

/// Runs batches, each at its second, and tells what became of the circuit by each.
fn run(circuit: &mut Circuit, batches: &[(u32, &str)]) -> Vec<Option<Transition>> {
    let rules = CircuitRules::default();
    let record =
        |(second, outcomes): &(u32, &str)| circuit.record(&tally(outcomes), &rules, at(*second));
    batches.iter().map(record).collect()
}

fn last(batches: &[(u32, &str)]) -> (Option<Transition>, Circuit) {
    let mut circuit = Circuit::new(at(0));
    let transitions = run(&mut circuit, batches);
    (transitions.last().copied().flatten(), circuit)
}

/// Opened at 0 by failures in a row: the first probe is due at 30.
const DOWN: (u32, &str) = (0, "----------");

fn pause_of(circuit: &Circuit) -> (u64, DateTime<Utc>) {
    let CircuitState::Open { until, pause, .. } = circuit.state else {
        panic!("it is not open: {circuit:?}");
    };
    (pause.as_secs(), until)
}

/// Batches, and what the last of them comes to.
type Case<'a> = (&'a [(u32, &'a str)], Option<Transition>);

#[test]
fn it_opens_on_failures_in_a_row_or_on_their_share() {
    use Transition::{Closed, GivenUp, Opened, Recovering, StillOpen};
    let day = 24 * 3_600;
    let mixed = "+-".repeat(10);
    let cases: &[Case<'_>] = &[
        (&[(0, "++")], None),
        (&[(0, "---------")], None),
        (&[DOWN], Some(Opened)),
        (&[(0, "-----"), (1, "-----")], Some(Opened)),
        // A success between them ends the row, in its place.
        (&[(0, "-----+"), (1, "-----")], None),
        (&[(0, "+---------"), (1, "-")], Some(Opened)),
        // Our own faults are not the receiver's.
        (&[(0, "?????????????????????????")], None),
        // Half of twenty.
        (&[(0, &mixed)], Some(Opened)),
        (&[(0, &mixed[2..])], None),
        (&[(0, &mixed[2..]), (59, "+-")], Some(Opened)),
        // The window is over by then.
        (&[(0, &mixed[2..]), (60, "+-")], None),
        // A success opens nothing, whatever the share is.
        (&[(0, "---------+---------"), (1, "+")], None),
        // While it is open only a probe counts.
        (&[DOWN, (1, "----------")], None),
        (&[DOWN, (1, "++++++++++")], None),
        (&[DOWN, (30, "P")], Some(Recovering)),
        (&[DOWN, (30, "N")], Some(StillOpen)),
        (&[DOWN, (30, "U")], Some(StillOpen)),
        (&[DOWN, (30, "0")], None),
        // Back, and not: one failure of two, but not one of three.
        (&[DOWN, (30, "P"), (31, "-")], Some(Opened)),
        (&[DOWN, (30, "P"), (31, "+-")], None),
        (&[DOWN, (30, "P"), (31, "+-"), (32, "-")], Some(Opened)),
        (&[DOWN, (30, "P"), (39, "+")], None),
        (&[DOWN, (30, "P"), (40, "+")], Some(Closed)),
        // Five days of nothing else.
        (&[(0, "-"), (5 * day - 1, "-")], None),
        (&[(0, "---------"), (5 * day, "-")], Some(GivenUp)),
        // Two of them tell too little of what was between.
        (&[(0, "-"), (5 * day, "-")], None),
        (&[(0, "-"), (day, "+"), (5 * day, "-")], None),
        (&[(0, "-"), (5 * day, "+")], None),
        (&[DOWN, (5 * day, "N")], Some(GivenUp)),
    ];
    for (batches, expected) in cases {
        assert_eq!(last(batches).0, *expected, "{batches:?}");
    }
}

#[test]
fn each_probe_that_fails_doubles_the_pause_to_the_longest() {
    let (_, mut circuit) = last(&[DOWN]);
    assert_eq!(pause_of(&circuit), (30, at(30)));
    let mut now = 30;
    for expected in [60, 120, 240, 480, 900, 900] {
        run(&mut circuit, &[(now, "N")]);
        assert_eq!(
            pause_of(&circuit),
            (expected, at(now) + Duration::from_secs(expected))
        );
        now += u32::try_from(expected).unwrap();
    }
    // Taken, and refused at once: the pause goes on growing where it was.
    let (_, again) = last(&[DOWN, (30, "N"), (90, "P"), (91, "-")]);
    assert_eq!(pause_of(&again), (120, at(91 + 120)));
    // After it was closed it begins anew.
    let (_, anew) = last(&[DOWN, (30, "N"), (90, "P"), (100, "+"), (200, DOWN.1)]);
    assert_eq!(pause_of(&anew), (30, at(230)));
}

#[test]
fn a_probe_that_was_not_sent_is_due_at_once_and_one_of_ours_after_the_same_pause() {
    let (_, unsent) = last(&[DOWN, (30, "0")]);
    assert_eq!(pause_of(&unsent), (30, at(30)));
    let (_, ours) = last(&[DOWN, (30, "U")]);
    assert_eq!(pause_of(&ours), (30, at(60)));
}

#[test]
fn what_somebody_asked_for_is_as_good_as_a_probe_if_it_is_taken_and_changes_nothing_if_not() {
    let (transition, circuit) = last(&[DOWN, (10, "rr?")]);
    assert_eq!((transition, pause_of(&circuit)), (None, (30, at(30))));
    let (transition, circuit) = last(&[DOWN, (10, "ra")]);
    assert_eq!(transition, Some(Transition::Recovering));
    assert_eq!(circuit.state.recovering_since(), Some(at(10)));
    // Where nothing was open it is a success like any other.
    assert_eq!(last(&[(0, "-"), (70, "a")]).0, None);
}

#[test]
fn it_is_open_since_it_opened_however_many_probes_failed() {
    let (_, circuit) = last(&[DOWN, (30, "N"), (90, "N")]);
    assert!(matches!(circuit.state, CircuitState::Open { since, .. } if since == at(0)));
}

#[test]
fn nothing_is_remembered_of_a_receiver_that_takes_everything_again() {
    let states = |batches: &[(u32, &str)]| last(batches).1.state;
    assert_eq!(states(&[(0, "+")]), CircuitState::Closed);
    assert_eq!(states(&[(0, "+-")]), CircuitState::Watched);
    assert_eq!(states(&[(0, "+-"), (10, "+")]), CircuitState::Watched);
    assert_eq!(states(&[(0, "+-"), (60, "+")]), CircuitState::Closed);
    assert_eq!(states(&[DOWN, (30, "P"), (40, "+")]), CircuitState::Closed);
}

#[test]
fn the_rate_doubles_every_second_until_there_is_no_limit() {
    let (_, circuit) = last(&[DOWN, (30, "P")]);
    let rate = |seconds| circuit.state.rate_after(Duration::from_secs(seconds));
    assert_eq!(rate(0), Some(10.0));
    assert_eq!(rate(3), Some(80.0));
    assert_eq!(rate(10), None);
    assert_eq!(last(&[DOWN]).1.state.rate_after(Duration::ZERO), None);
    assert_eq!(circuit.state.name(at(39)), CircuitName::Recovering);
    assert_eq!(circuit.state.name(at(40)), CircuitName::Closed);
}

#[test]
fn names_are_read_as_they_are_written() {
    for name in CircuitName::ALL {
        assert_eq!(name.as_str().parse(), Ok(name));
    }
}
