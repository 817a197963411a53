//! Answers compared with the form that was asked for.

use peregrine_core::ChatResponse;
use peregrine_signatures::{Contract, Error as SignatureError, Exactness, FieldEvent, Fields, Reply};

use crate::driver::ops::Read;
use crate::run::Verdict;

/// Reads an answer, of which `read` was read while it arrived. What is read as fields fits the types of a derived
/// signature too.
fn read_fields(
    contract: &Contract,
    response: &ChatResponse,
    read: Option<Read>,
    told: &mut Vec<FieldEvent>,
) -> Result<Option<(Fields, Exactness)>, SignatureError> {
    let reply = match read {
        Some(Read::Whole(reader)) => reader.finish::<Fields>(response, told)?,
        _ => contract.read::<Fields>(response)?,
    };
    Ok(match reply {
        Reply::Answer { output, exactness } => Some((output, exactness)),
        _ => None,
    })
}

/// What a check came to.
pub(crate) struct Checked {
    pub(crate) verdict: Verdict,
    pub(crate) told: Vec<FieldEvent>,
    /// The error, whole, if the answer was rejected.
    pub(crate) error: Option<SignatureError>,
}

pub(crate) fn check(contract: &Contract, response: &ChatResponse, read: Option<Read>) -> Checked {
    let mut told = Vec::new();
    if let Some(Read::UpTo(problem)) = read {
        let messages = contract.repair(response, std::slice::from_ref(&problem));
        // Read again for the whole error: where it is wrong, and the text.
        let error = read_fields(contract, response, None, &mut told).err();
        let verdict = Verdict::Rejected {
            told: messages,
            problem: problem.to_string(),
        };
        told = vec![FieldEvent::Restarted { problem }];
        return Checked { verdict, told, error };
    }
    let streamed = read.is_some();
    let (verdict, error) = match read_fields(contract, response, read, &mut told) {
        Ok(Some((value, exactness))) => {
            let mut noted = ChatResponse::text("");
            contract.record(&mut noted, exactness, 0);
            let metadata = noted.metadata;
            (Verdict::Accepted { value, metadata }, None)
        }
        // The run asks only about answers without calls of tools, so this is nobody's way to an answer.
        Ok(None) => {
            let text = "it called tools instead of answering".to_owned();
            (Verdict::Declined { text }, None)
        }
        Err(SignatureError::Output(error)) => {
            let messages = contract.repair(response, &error.problems);
            if let Some(problem) = error.problems.first().filter(|_| streamed) {
                told.push(FieldEvent::Restarted {
                    problem: problem.clone(),
                });
            }
            let verdict = Verdict::Rejected {
                told: messages,
                problem: error.to_string(),
            };
            (verdict, Some(SignatureError::Output(error)))
        }
        Err(SignatureError::Refused { text }) => {
            let verdict = Verdict::Declined { text: text.clone() };
            (verdict, Some(SignatureError::Refused { text }))
        }
        Err(other) => {
            let text = other.to_string();
            (Verdict::Declined { text }, Some(other))
        }
    };
    Checked { verdict, told, error }
}
