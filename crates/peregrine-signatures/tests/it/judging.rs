//! Any bytes as an answer, read in every way there is. Shared by the bounded fuzz test and an endless one, so it names
//! nothing of the other tests.

use peregrine_core::{ChatEvent, ChatRequest, ChatResponse, Done, Finish};
use peregrine_signatures::{
    Contract, Error, FieldEvent, Fields, Plan, Reading, Reply, UnknownFields, ViolationKind, parse,
};

const SIGNATURE: &str =
    "q -> a: any, n: int?, l: list[float], k: literal['x', 'why', 3], m: dict[str, date], s";

/// Reads the text whole, and in pieces that the first bytes choose; both must agree, and say what was told.
///
/// # Panics
///
/// If they do not.
pub(crate) fn judge(bytes: &[u8]) {
    let (settings, text) = bytes.split_at(bytes.len().min(2));
    let (cut, flags) = (
        usize::from(settings.first().copied().unwrap_or(0)) + 1,
        settings.get(1).copied().unwrap_or(0),
    );
    let text = String::from_utf8_lossy(text);
    let mut reading = Reading::default().with_max_bytes(64 * 1024);
    if flags & 1 != 0 {
        reading = reading.with_unknown_fields(UnknownFields::Ignore);
    }
    let signature = parse(SIGNATURE).expect("the signature is right");
    let contract = Contract::new(signature, Plan::Prompt).with_reading(reading);
    let response = ChatResponse::text(&*text);
    let whole = contract.read::<Fields>(&response);

    let mut reader = contract.reader(&ChatRequest::default());
    let (mut told, mut misfit) = (Vec::new(), None);
    let mut rest = &*text;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.ceil_char_boundary(cut.min(rest.len())));
        rest = after;
        let event = ChatEvent::TextDelta {
            text: piece.to_owned(),
        };
        misfit = reader.push(&event, &mut told).err().or(misfit);
    }
    let done = ChatEvent::Done(Box::new(Done::new(Finish::Stop)));
    assert_eq!(
        reader.push(&done, &mut told),
        Ok(()),
        "nothing is left to be wrong"
    );
    let streamed = reader.finish::<Fields>(&response, &mut told);
    match (&whole, &streamed) {
        (Ok(one), Ok(other)) => assert_eq!(one, other, "{text}"),
        (Err(Error::Output(one)), Err(Error::Output(other))) => {
            assert_eq!(one, other, "{text}");
            assert!(one.to_string().len() < 8_000 && !one.problems.is_empty());
            // Whatever the model is told about it is a request that providers take.
            for message in contract.repair(&response, &one.problems) {
                assert!(!message.parts.is_empty());
            }
        }
        other => panic!("{other:?} for {text}"),
    }
    if let Some(problem) = misfit
        && whole.is_ok()
    {
        assert!(
            matches!(problem.kind, ViolationKind::Unknown | ViolationKind::Missing),
            "{problem}, but whole it fits: {text}"
        );
    }
    if let Ok(Reply::Answer { output, .. }) = &whole {
        let start = told
            .iter()
            .rposition(|event| matches!(event, FieldEvent::Restarted { .. }));
        let counts = &told[start.map_or(0, |place| place + 1)..];
        let mut completed = Fields::new();
        for event in counts {
            if let FieldEvent::Completed { path, value } = event
                && path.index().is_none()
            {
                let before = completed.insert(path.name().to_owned(), value.clone());
                assert_eq!(before, None, "{path} is told once in {text}");
            }
        }
        assert_eq!(completed, *output, "{text}");
    }
}
