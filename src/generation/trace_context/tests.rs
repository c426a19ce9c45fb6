use proptest::prelude::*;

use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn read(parents: &[&str], states: &[&str]) -> Option<TraceContext> {
    TraceContext::read(parents.iter().map(|text| text.as_bytes()), states.iter().map(|text| text.as_bytes()))
}

#[test]
fn a_valid_traceparent_is_passed_on_with_its_state() {
    let context = read(&[PARENT], &["rojo=00f067aa0ba902b7, congo=t61rcWkgMzE", "a@b=c"]).unwrap();
    assert_eq!(context.traceparent(), PARENT);
    assert_eq!(context.tracestate(), "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE,a@b=c");
    let child = context.child();
    assert_eq!((child.trace, child.is_sampled, child.tracestate()), (context.trace, true, context.tracestate()));
    assert_ne!(child.span, context.span);
    let stored = serde_json::to_string(&context).unwrap();
    assert_eq!(serde_json::from_str::<TraceContext>(&stored).unwrap(), context);
}

#[test]
fn the_flags_of_a_later_version_are_those_of_version_00() {
    let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-what-comes-later";
    assert_eq!(read(&[later], &[]).unwrap().traceparent(), PARENT);
    let unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-fe";
    assert!(!read(&[unsampled], &[]).unwrap().is_sampled);
}

#[test]
fn an_invalid_traceparent_is_ignored() {
    for parent in [
        "",
        "00",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more",
        "00-0af7651916cd43dd8448eb211c80319cb7ad6b7169203331-0100",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333-001",
        "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-é",
        " 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ] {
        assert_eq!(read(&[parent], &["a=b"]), None, "{parent}");
    }
    assert_eq!(read(&[PARENT, PARENT], &[]), None, "two headers");
    assert_eq!(read(&[], &["a=b"]), None, "a state without a parent");
}

#[test]
fn an_invalid_tracestate_is_left_out_and_the_parent_stays() {
    let many: Vec<String> = (0..33).map(|number| format!("k{number}=v")).collect();
    let (many, long) = (many.join(","), format!("a={}", "v".repeat(257)));
    for state in ["a", "A=b", "a=", "=b", "a=b=c", "a=b,a=c", "1a=b", "a@=b", "a@1=b", "a=é", &many, &long] {
        let context = read(&[PARENT], &[state]).unwrap();
        assert_eq!((context.traceparent().as_str(), context.tracestate()), (PARENT, ""), "{state}");
    }
    assert_eq!(read(&[PARENT], &["a=b,, \t,c=d"]).unwrap().tracestate(), "a=b,c=d");
    assert_eq!(read(&[PARENT], &["0a@b=c d"]).unwrap().tracestate(), "0a@b=c d");
}

#[test]
fn a_long_tracestate_loses_its_long_entries_first_and_then_its_last_ones() {
    let long = format!("long={}", "v".repeat(200));
    let short = |from: usize| (from..from + 3).map(|key| format!("k{key}={}", "v".repeat(100))).collect::<Vec<_>>();
    let all = [short(0), vec![long], short(3)].concat();
    let context = read(&[PARENT], &[&all.join(",")]).unwrap();
    assert!(context.tracestate().len() <= MAX_STATE_CHARS);
    assert_eq!(context.tracestate(), [short(0), vec![short(3)[0].clone()]].concat().join(","));
}

#[test]
fn new_traces_are_sampled_by_a_fraction_that_is_even() {
    let sampled = (0..10_000).filter(|_| TraceContext::root(|trace| trace.fraction() < 0.25).is_sampled).count();
    assert!((2200..2800).contains(&sampled), "{sampled} of 10,000 traces are sampled at a ratio of 0.25");
}

proptest! {
    #[test]
    fn no_header_panics_and_what_is_passed_on_is_valid(parent in ".{0,80}", state in ".{0,700}") {
        let parents = [parent, PARENT.to_owned()];
        for parent in &parents {
            if let Some(context) = read(&[parent], &[&state]) {
                let again = read(&[&context.traceparent()], &[context.tracestate()]).unwrap();
                prop_assert_eq!(again, context);
            }
        }
    }
}
