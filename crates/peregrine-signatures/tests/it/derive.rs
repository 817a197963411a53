//! What `#[derive(Signature)]` gives: types, constraints, names, records.

use std::collections::{BTreeMap, HashMap};

use peregrine_core::{ChatResponse, DocumentPart, MediaPart, Part};
use peregrine_signatures::{
    DefinitionError, Error, Fields, JsonSchema, MediaKind, Plan, Predict, Signature, ViolationKind, predict,
    schemars,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::model::{Script, run};

/// Sort a support ticket.
#[derive(Signature)]
#[signature(derive(PartialEq))]
pub(crate) struct Triage {
    /// what the customer wrote
    #[input]
    ticket: String,
    /// how urgent it is
    #[output(range = 1..=5)]
    urgency: u8,
    /// who takes it
    #[output(one_of = ["billing", "technical", "other"])]
    queue: String,
    /// words to find it by
    #[output(length = 1..=3)]
    tags: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Contact {
    Mail { address: String },
    Phone { number: u64, country: Option<String> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
struct Score(u8);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
struct Tree {
    label: String,
    #[serde(default)]
    children: Vec<Tree>,
}

/// Everything at once.
#[derive(Signature)]
#[signature(name = "every-type", input = Given, output = Made, derive(PartialEq))]
struct Everything {
    #[input]
    text: String,
    #[input(rename = "type")]
    kind: Option<u8>,
    #[output]
    contacts: Vec<Contact>,
    #[output]
    score: Score,
    #[output(range = -0.5..0.5)]
    balance: Option<f32>,
    #[output]
    tree: Tree,
    #[output]
    counts: BTreeMap<String, i32>,
    #[output]
    by_number: HashMap<u32, bool>,
    #[output]
    pair: (char, i8),
    #[output(rename = "return")]
    r#return: Result<u8, String>,
    #[output]
    anything: serde_json::Value,
}

#[test]
fn every_serde_type_comes_back_typed() {
    let answer = json!({
        "contacts": [{"kind": "mail", "address": "a@b"}, {"kind": "phone", "number": 5, "country": null}],
        "score": 200,
        "balance": null,
        "tree": {"label": "root", "children": [{"label": "leaf"}]},
        "counts": {"a": -1},
        "by_number": {"7": true},
        "pair": ["x", -8],
        "return": {"Ok": 3},
        "anything": {"deep": [1, "two"]},
    });
    let model = Script::texts([answer.to_string().as_str()]);
    let made = run(predict::<Everything>(&model, &Given::new("text", Some(3))))
        .unwrap()
        .output;
    let leaf = Tree {
        label: "leaf".to_owned(),
        children: Vec::new(),
    };
    let expected = Made {
        contacts: vec![
            Contact::Mail {
                address: "a@b".to_owned(),
            },
            Contact::Phone {
                number: 5,
                country: None,
            },
        ],
        score: Score(200),
        balance: None,
        tree: Tree {
            label: "root".to_owned(),
            children: vec![leaf],
        },
        counts: BTreeMap::from([("a".to_owned(), -1)]),
        by_number: HashMap::from([(7, true)]),
        pair: ('x', -8),
        r#return: Ok(3),
        anything: json!({"deep": [1, "two"]}),
    };
    assert_eq!(made, expected);
    assert!(
        model.asked()[0]
            .messages
            .get(1)
            .unwrap()
            .text()
            .contains("<type>\n3\n</type>")
    );
    assert_eq!(Everything::compiled().unwrap().name(), "every-type");
}

#[test]
fn each_constraint_is_kept() {
    let compiled = Triage::compiled().unwrap();
    let verdict = |answer: serde_json::Value| {
        let reply = crate::model::read(
            compiled,
            &ChatResponse::text(answer.to_string()),
            Default::default(),
        );
        match reply {
            Ok(_) => None,
            Err(Error::Output(error)) => Some((error.problems[0].path.clone(), error.problems[0].kind)),
            Err(other) => panic!("{other}"),
        }
    };
    let good = json!({"urgency": 5, "queue": "other", "tags": ["a"]});
    assert_eq!(verdict(good.clone()), None);
    for (field, value, path, kind) in [
        ("urgency", json!(6), "urgency", ViolationKind::Range),
        ("urgency", json!(0), "urgency", ViolationKind::Range),
        ("urgency", json!("5"), "urgency", ViolationKind::Type),
        ("urgency", json!(null), "urgency", ViolationKind::Type),
        ("urgency", json!(4.5), "urgency", ViolationKind::Type),
        ("queue", json!("Billing"), "queue", ViolationKind::Choice),
        ("tags", json!([]), "tags", ViolationKind::Length),
        ("tags", json!(["a", "b", "c", "d"]), "tags", ViolationKind::Length),
        ("tags", json!(["a", 2]), "tags[1]", ViolationKind::Type),
        ("extra", json!(1), "extra", ViolationKind::Unknown),
    ] {
        let mut bad = good.clone();
        bad[field] = value.clone();
        assert_eq!(verdict(bad), Some((path.to_owned(), kind)), "{field} = {value}");
    }
    let mut missing = good;
    missing.as_object_mut().unwrap().shift_remove("queue");
    assert_eq!(
        verdict(missing),
        Some(("queue".to_owned(), ViolationKind::Missing))
    );
}

#[test]
fn a_record_splits_and_joins() {
    let record = Triage::from((
        TriageInput::new("help"),
        TriageOutput {
            urgency: 2,
            queue: "other".to_owned(),
            tags: Vec::new(),
        },
    ));
    let (input, output): (TriageInput, TriageOutput) = record.into();
    assert_eq!((input.ticket.as_str(), output.urgency), ("help", 2));
}

/// Say what the media show.
#[derive(Signature)]
struct Look {
    #[input]
    question: String,
    #[input(image)]
    photos: Vec<MediaPart>,
    #[input(audio)]
    sound: Option<MediaPart>,
    #[input]
    paper: DocumentPart,
    #[output]
    answer: String,
}

#[test]
fn media_become_parts_of_the_message() {
    let compiled = Look::compiled().unwrap();
    let kinds: Vec<Option<MediaKind>> = compiled.inputs().iter().map(|field| field.media()).collect();
    assert_eq!(
        kinds,
        [
            None,
            Some(MediaKind::Image),
            Some(MediaKind::Audio),
            Some(MediaKind::Document)
        ]
    );
    let photos = vec![
        MediaPart::url("https://example.org/1.png"),
        MediaPart::bytes("image/png", vec![1, 2]),
    ];
    let input = LookInput::new(
        "what?",
        photos.clone(),
        None,
        DocumentPart::text("notes", "a note"),
    );
    let message = compiled.user(&input).unwrap();
    assert_eq!(
        message.parts,
        [
            Part::text("<question>\nwhat?\n</question>\n<photos>\n"),
            Part::Image(photos[0].clone()),
            Part::Image(photos[1].clone()),
            Part::text("</photos>\n<sound/>\n<paper>\n"),
            Part::Document(DocumentPart::text("notes", "a note")),
            Part::text("</paper>"),
        ]
    );
    // As fields and back: the same message.
    let fields = compiled.fields(&input).unwrap();
    assert_eq!(compiled.user(&fields).unwrap(), message);
}

/// Its constraint can only be known to be wrong when the type's schema is there.
#[derive(Signature)]
struct Contradiction {
    #[input]
    text: String,
    #[output(pattern = "^a")]
    score: Score,
}

#[test]
fn what_the_derive_cannot_see_is_an_error_of_the_definition_each_time() {
    for _ in 0..2 {
        let error = Contradiction::compiled().unwrap_err();
        let Error::Definition(definition) = &error else {
            panic!("{error}")
        };
        assert!(matches!(&**definition, DefinitionError::Constraint { field, .. } if field == "score"));
        assert_eq!(
            error.to_string(),
            "pattern on field `score` does not work: its type is not a text"
        );
    }
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(crate = "schemars")]
#[serde(try_from = "String")]
struct Even(String);

impl TryFrom<String> for Even {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.len() % 2 {
            0 => Ok(Self(text)),
            _ => Err("a text of an even length is wanted".to_owned()),
        }
    }
}

/// Echo.
#[derive(Signature)]
struct Echo {
    #[input]
    text: String,
    #[output]
    echo: Even,
}

#[test]
fn a_types_own_refusal_is_repaired_like_any_misfit() {
    let model = Script::texts([r#"{"echo": "odd"}"#, r#"{"echo": "even"}"#]);
    let prediction = run(predict::<Echo>(&model, &EchoInput::new("x"))).unwrap();
    assert_eq!(
        (prediction.output.echo.0.as_str(), prediction.repairs),
        ("even", 1)
    );
    let told = model.asked()[1].messages.last().unwrap().text();
    assert!(
        told.contains(
            "`echo`: expected a value that its type takes (a text of an even length is wanted), found \"odd\""
        ),
        "{told}"
    );
}

macro_rules! signature {
    ($(#[$doc:meta])* $name:ident, $given:ty, $made:ty, $what:expr) => {
        $(#[$doc])*
        #[derive(Signature)]
        struct $name {
            #[input]
            given: $given,
            #[doc = $what]
            #[output]
            made: $made,
        }
    };
}

signature!(
    /// Count them.
    ByMacro,
    String,
    Vec<u8>,
    "the counts"
);

#[test]
fn a_signature_can_be_written_by_a_macro() {
    let compiled = ByMacro::compiled().unwrap();
    assert!(compiled.instruction().starts_with("Count them.\n"));
    assert_eq!(compiled.outputs()[0].description(), "the counts");
    let model = Script::texts([r#"{"made": [1, 2]}"#]);
    let prediction = run(predict::<ByMacro>(&model, &ByMacroInput::new("x"))).unwrap();
    assert_eq!(prediction.output.made, [1, 2]);
}

#[doc = concat!(" Kept", " elsewhere.\n")]
#[doc = concat!("With more.", " \n")]
#[derive(Signature)]
struct Elsewhere {
    #[doc = concat!("the", " input")]
    #[input]
    given: String,
    #[output]
    made: u8,
}

#[test]
fn an_instruction_can_be_kept_elsewhere() {
    let compiled = Elsewhere::compiled().unwrap();
    let instruction = compiled.instruction();
    assert!(
        instruction.starts_with("Kept elsewhere.\n\nWith more.\n\nYou"),
        "{instruction}"
    );
    assert_eq!(compiled.inputs()[0].description(), "the input");
}

#[test]
fn compiled_once_for_the_life_of_the_process() {
    let first = Triage::compiled().unwrap();
    assert!(std::ptr::eq(first, Triage::compiled().unwrap()));
    assert_ne!(first.digest(), Look::compiled().unwrap().digest());
    // The hash is the same in every process and on every machine: a change here is a change for every stored hash.
    assert_eq!(
        first.digest().to_string(),
        "071a6955c4f5861fadd058f633e4af0a5b9e4b093397efd30009b2795756c8e3"
    );
}

mod facade {
    //! A facade that re-exports the crate, as `crate = ".."` has it.
    pub(crate) mod contracts {
        pub(crate) use peregrine_signatures::*;
    }
}

/// Under another name.
#[derive(facade::contracts::Signature)]
#[signature(crate = "facade::contracts")]
struct Renamed {
    #[input]
    a: String,
    #[output]
    b: String,
}

#[test]
fn a_facade_can_re_export_the_derive() {
    assert_eq!(Renamed::compiled().unwrap().name(), "Renamed");
}

#[test]
fn futures_and_types_cross_threads() {
    fn shareable<T: Send + Sync>() {}
    fn sendable<T: Send>(_: &T) {}
    shareable::<Error>();
    shareable::<Predict<TriageInput, TriageOutput>>();
    shareable::<peregrine_signatures::Composition>();
    shareable::<peregrine_signatures::Extraction>();
    shareable::<peregrine_signatures::EventReader>();
    let model = Script::texts([]);
    let input = TriageInput::new("x");
    sendable(&predict::<Triage>(&model, &input));
    let mut stream = Predict::of::<Triage>().unwrap().stream(&model, &input).unwrap();
    sendable(&stream.next());
    assert!(size_of::<Error>() <= 40, "{}", size_of::<Error>());
    let fields = Fields::new();
    let composition = peregrine_signatures::Composition::sequential(
        "s",
        [peregrine_signatures::Stage::new(
            Triage::compiled().unwrap().clone(),
        )],
    )
    .unwrap();
    sendable(&composition.call(&model, &fields));
    assert_eq!(Plan::Prompt.to_string(), "prompt");
}
