//! Checks the wires of a composition and settles its inputs and outputs.

use std::fmt;
use std::sync::Arc;

use super::{Composition, Stage, Work};
use crate::compiled::{Compiled, FieldInfo};
use crate::error::WiringError;
use crate::shape::{Shape, fits};
use crate::spec::Side;
use crate::{DefinitionError, Error};

/// An input or output of a stage or a composition: a name, and the signature's field that settles its type.
#[derive(Clone)]
pub(super) struct Port {
    name: Arc<str>,
    /// Who has it, for errors.
    owner: String,
    signature: Arc<Compiled>,
    side: Side,
    place: usize,
}

impl Port {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn field(&self) -> &FieldInfo {
        match self.side {
            Side::Input => &self.signature.inputs()[self.place],
            Side::Output => &self.signature.outputs()[self.place],
        }
    }

    fn shape(&self) -> &Shape {
        match self.side {
            Side::Input => self.signature.input_shape(),
            Side::Output => self.signature.shape(),
        }
    }

    /// Whether every value of this one fits the other.
    fn fits(&self, other: &Self) -> Result<(), String> {
        match (self.field().media(), other.field().media()) {
            (None, None) => fits(
                (self.shape(), self.field().node),
                (other.shape(), other.field().node),
            ),
            (Some(one), Some(other)) if one == other => Ok(()),
            _ => Err(format!(
                "{} is not {}",
                self.field().type_name(),
                other.field().type_name()
            )),
        }
    }

    fn named(&self, name: &str, owner: &str) -> Self {
        Self {
            name: Arc::from(name),
            owner: owner.to_owned(),
            ..self.clone()
        }
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.field().type_name())
    }
}

/// The names of the inputs of a stage's work.
pub(super) fn inputs_of(work: &Work) -> Box<dyn Iterator<Item = &str> + '_> {
    match work {
        Work::Predict(predict) => Box::new(predict.signature().inputs().iter().map(FieldInfo::name)),
        Work::Composition(composition) => Box::new(composition.input_names()),
    }
}

fn ports(stage: &Stage, side: Side) -> Vec<Port> {
    match &stage.work {
        Work::Composition(composition) => match side {
            Side::Input => composition.inputs.to_vec(),
            Side::Output => composition.outputs.to_vec(),
        },
        Work::Predict(predict) => {
            let signature = predict.signature();
            let fields = match side {
                Side::Input => signature.inputs(),
                Side::Output => signature.outputs(),
            };
            let port = |(place, field): (usize, &FieldInfo)| Port {
                name: Arc::from(field.name()),
                owner: stage.name.clone(),
                signature: signature.clone(),
                side,
                place,
            };
            fields.iter().enumerate().map(port).collect()
        }
    }
}

pub(super) fn sequential(name: String, stages: Vec<Stage>) -> Result<Composition, Error> {
    let mut inputs: Vec<Port> = Vec::new();
    let mut known: Vec<Port> = Vec::new();
    let mut outputs = Vec::new();
    for (place, stage) in stages.iter().enumerate() {
        check_names(stage)?;
        for port in ports(stage, Side::Input) {
            let is_asked = stage.asked.iter().any(|asked| *asked == *port.name);
            let is_wired = stage.wires.iter().any(|(input, _)| *input == *port.name);
            let source = stage.source(&port.name);
            match known.iter().find(|known| *known.name == *source) {
                Some(from) => check_fit(stage, &port, from)?,
                None if place == 0 || is_asked => {
                    let input = port.named(source, &name);
                    inputs.push(input.clone());
                    known.push(input);
                }
                None => return Err(unwired(stage, &port, is_wired.then_some(source), &known)),
            }
        }
        outputs = outer_outputs(stage)?;
        for output in &outputs {
            clash(&known, output)?;
        }
        known.extend(outputs.iter().cloned());
    }
    composition(name, stages, inputs, outputs, false)
}

pub(super) fn parallel(name: String, stages: Vec<Stage>) -> Result<Composition, Error> {
    let mut inputs: Vec<Port> = Vec::new();
    let mut outputs: Vec<Port> = Vec::new();
    for stage in &stages {
        check_names(stage)?;
        for port in ports(stage, Side::Input) {
            let source = stage.source(&port.name);
            let place = inputs.iter().position(|known| *known.name == *source);
            match place.map(|place| &mut inputs[place]) {
                None => inputs.push(port.named(source, &name)),
                Some(shared) => {
                    // The narrower type of the two is what both take.
                    if let Err(problem) = shared.fits(&port) {
                        port.fits(shared)
                            .map_err(|_| mismatch(stage, &port, shared, problem))?;
                        *shared = port.named(source, &name);
                    }
                }
            }
        }
        for output in outer_outputs(stage)? {
            clash(&outputs, &output)?;
            outputs.push(output);
        }
    }
    // A later, narrower type may no longer be what an earlier stage was compared with.
    for stage in &stages {
        for port in ports(stage, Side::Input) {
            if let Some(shared) = inputs
                .iter()
                .find(|known| *known.name == *stage.source(&port.name))
            {
                check_fit(stage, &port, shared)?;
            }
        }
    }
    composition(name, stages, inputs, outputs, true)
}

fn composition(
    name: String,
    stages: Vec<Stage>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    is_parallel: bool,
) -> Result<Composition, Error> {
    if stages.is_empty() {
        return Err(wiring(WiringError::Empty));
    }
    Ok(Composition {
        name: Arc::from(name),
        inputs: Arc::from(inputs),
        outputs: Arc::from(outputs),
        stages: Arc::from(stages),
        is_parallel,
    })
}

/// The outputs of a stage under their outer names.
fn outer_outputs(stage: &Stage) -> Result<Vec<Port>, Error> {
    let mut outer: Vec<Port> = Vec::new();
    for port in ports(stage, Side::Output) {
        let port = port.named(stage.outside(&port.name), &stage.name);
        clash(&outer, &port)?;
        outer.push(port);
    }
    Ok(outer)
}

/// Every wire, question and new name of a stage must be about a field that it has.
fn check_names(stage: &Stage) -> Result<(), Error> {
    let inputs: Vec<&str> = inputs_of(&stage.work).collect();
    let named = stage.wires.iter().map(|(input, _)| input).chain(&stage.asked);
    if let Some(input) = named.into_iter().find(|name| !inputs.contains(&name.as_str())) {
        return Err(wiring(WiringError::UnknownInput {
            step: stage.name.clone(),
            input: input.clone(),
            available: inputs.join(", "),
        }));
    }
    let outputs = ports(stage, Side::Output);
    match stage
        .renamed
        .iter()
        .find(|(output, _)| !outputs.iter().any(|port| *port.name == **output))
    {
        None => Ok(()),
        Some((output, name)) => Err(wiring(WiringError::UnknownSource {
            step: stage.name.clone(),
            input: name.clone(),
            from: output.clone(),
            available: names(&outputs),
        })),
    }
}

fn check_fit(stage: &Stage, port: &Port, from: &Port) -> Result<(), Error> {
    from.fits(port)
        .map_err(|problem| mismatch(stage, port, from, problem))
}

fn mismatch(stage: &Stage, port: &Port, from: &Port, problem: String) -> Error {
    wiring(WiringError::Type {
        step: stage.name.clone(),
        input: port.name.to_string(),
        from: from.name.to_string(),
        problem,
    })
}

fn unwired(stage: &Stage, port: &Port, wired: Option<&str>, known: &[Port]) -> Error {
    let step = stage.name.clone();
    let input = port.name.to_string();
    let available = names(known);
    wiring(match wired {
        None => WiringError::Unwired {
            step,
            input,
            available,
        },
        Some(from) => WiringError::UnknownSource {
            step,
            input,
            from: from.to_owned(),
            available,
        },
    })
}

fn clash(known: &[Port], output: &Port) -> Result<(), Error> {
    match known.iter().find(|known| known.name == output.name) {
        None => Ok(()),
        Some(first) => Err(wiring(WiringError::Clash {
            field: output.name.to_string(),
            first: first.owner.clone(),
            second: output.owner.clone(),
        })),
    }
}

fn names(ports: &[Port]) -> String {
    let names: Vec<&str> = ports.iter().map(Port::name).collect();
    names.join(", ")
}

fn wiring(error: WiringError) -> Error {
    DefinitionError::from(error).into()
}
