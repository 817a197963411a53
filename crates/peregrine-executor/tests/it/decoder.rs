//! The decoder of plans that are still being written: however the bytes are cut, the steps are the same.

use peregrine_executor::{Plan, PlanDecoder, PlanError, Step};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::decoding::{decode, plans};

fn whole(text: &str) -> Result<Vec<Step>, PlanError> {
    decode(&[text.as_bytes()])
}

fn some_steps() -> impl Strategy<Value = Vec<Value>> {
    let text = || proptest::string::string_regex(r#"[a-z "\\\[\]{},:ä$]{0,12}"#).unwrap();
    let step = (text(), text(), any::<bool>()).prop_map(|(one, other, nested)| {
        let parameters = if nested {
            json!({"steps": [one, {"k": other}]})
        } else {
            json!([one, other])
        };
        (parameters, nested)
    });
    proptest::collection::vec(step, 0..6).prop_map(|steps| {
        let steps = steps.into_iter().enumerate();
        let step = |(n, (parameters, nested)): (usize, (Value, bool))| {
            let mut step = json!({"id": format!("s{n}"), "action": "x", "parameters": parameters});
            if nested {
                step["timeout"] = json!("1s");
            }
            step
        };
        steps.map(step).collect()
    })
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_steps(
        steps in some_steps(), form in 0..4_u8, pretty in any::<bool>(), cuts in proptest::collection::vec(0.0..1.0_f64, 0..8)
    ) {
        let list = json!(steps);
        let write = |value: &Value| if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) }.unwrap();
        let text = match form {
            0 => write(&list),
            1 => write(&json!({"steps": list})),
            2 => write(&json!({"goal": "a [\"steps\": [", "steps": list, "why": "} ]"})),
            _ if steps.is_empty() => write(&list),
            _ => steps.iter().map(|step| step.to_string() + "\r\n").collect(),
        };
        let expected: Vec<Step> = steps.iter().map(|step| serde_json::from_value(step.clone()).unwrap()).collect();
        if form < 3 {
            // Read as one text, by the other parser; references in it may be wrong, which is not its matter here.
            if let Ok(plan) = Plan::from_json(&text) {
                prop_assert_eq!(&plan.steps().cloned().collect::<Vec<_>>(), &expected);
            }
        }
        let mut at: Vec<usize> = cuts.iter().map(|share| (share * text.len() as f64) as usize).collect();
        at.extend([0, text.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|ends| &text.as_bytes()[ends[0]..ends[1]]).collect();
        prop_assert_eq!(&decode(&pieces).unwrap(), &expected);
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        prop_assert_eq!(&decode(&bytes).unwrap(), &expected);
        // Cut short it is an error, unless what is missing is white space or whole lines.
        if form < 3 {
            let cut = text.trim_end().len() - 1;
            prop_assert!(whole(&text[..cut]).is_err());
        }
    }
}

#[test]
fn a_step_comes_as_soon_as_it_is_whole() {
    let mut decoder = PlanDecoder::new();
    let mut push = |text: &str| decoder.push(text.as_bytes()).unwrap().len();
    assert_eq!(
        push(r#"{"reasoning": "first [", "steps" : [ {"id": "a", "action": "x""#),
        0
    );
    assert_eq!(push("}"), 1);
    assert_eq!(push(r#" , {"id":"b","action":"x"},{"id":"c","action":"x"}"#), 2);
    assert_eq!(push("]"), 0);
    assert_eq!(push(r#", "note": "done"} "#), 0);
    decoder.finish().unwrap();
}

#[test]
fn what_is_wrong_is_told() {
    for (text, expected) in [
        ("", "there is no plan in it"),
        ("hello", "a list of steps was expected"),
        (
            "[{\"id\":\"a\",\"action\":\"x\"}",
            "it ends in the middle of the plan",
        ),
        ("[{\"id\":\"a\",\"act", "it ends in the middle of the plan"),
        (
            "[{\"id\":\"a\",\"action\":\"x\"} {",
            "a comma or the end of the list was expected",
        ),
        ("[{\"id\":\"a\",\"action\":\"x\"},]", "a step was expected"),
        ("[1]", "a step was expected"),
        ("[] []", "something follows the list"),
        ("{\"steps\":[]} {", "something follows the plan"),
        ("{\"steps\":[], \"more\": 1}", "`more` is not known"),
        ("{\"steps\":[], \"steps\": []}", "duplicate field `steps`"),
        ("{\"n\": 1, \"steps\":[]}", "`n` is not known"),
        (
            "[{\"id\":\"a\",\"action\":\"x\",\"oops\":1}]",
            "step `a`: unknown field `oops`",
        ),
        ("{\"id\":\"a\"}", "step `a`: missing field `action`"),
        ("[{\"id\":\"a\" \"action\":\"x\"}]", "step 0: expected `,` or `}`"),
        ("[}", "a step was expected"),
        ("[{]}", "step 0: key must be a string"),
    ] {
        let told = whole(text).unwrap_err().to_string();
        assert!(told.contains(expected), "{text}: {told}");
    }
    let long = format!("[{{\"id\": \"{}", "x".repeat(5000));
    assert!(
        whole(&long)
            .unwrap_err()
            .to_string()
            .contains("step 0: it is longer than 4096 bytes")
    );
    let deep = format!(
        "[{{\"id\":\"a\",\"action\":\"x\",\"parameters\":{}",
        "[".repeat(2000) + &"]".repeat(2000) + "}]"
    );
    assert!(whole(&deep).unwrap_err().to_string().contains("recursion limit"));
}

/// Random bytes, and plans with random damage: an error or steps, never a panic, and the same for every cut.
#[test]
fn seeded_fuzz_of_the_decoder() {
    let number = |name: &str, usual: u64| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(usual)
    };
    let (cases, seed) = (
        number("PEREGRINE_FUZZ_CASES", 500),
        number("PEREGRINE_FUZZ_SEED", 0),
    );
    let good = r#"{"goal":"g","steps":[{"id":"a","action":"echo","parameters":{"q":"\"[{"},"retries":{"max":2,"wait":"1s"}},{"id":"b","action":"echo","parameters":"x $a.q","depends_on":["a"],"timeout":"1s","on_failure":{"fallback":[]},"checks":[{"action":"check","policy":"gate","parameters":"$b"}]},{"id":"c","action":"fail","resources":["r"],"parameters":["${b}"],"estimate":7}]}"#;
    for case in seed..seed + cases {
        let mut random = fastrand::Rng::with_seed(case);
        let mut bytes = good.as_bytes().to_vec();
        for _ in 0..random.usize(0..6) {
            let at = random.usize(0..bytes.len());
            match random.u8(0..3) {
                0 => bytes[at] = *random.choice(br#"{}[],:"\ x$"#).unwrap(),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, random.u8(..)),
            }
        }
        let caught = std::panic::catch_unwind(|| plans(&bytes));
        assert!(caught.is_ok(), "seed {case}: {}", String::from_utf8_lossy(&bytes));
    }
}
