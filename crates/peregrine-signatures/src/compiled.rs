//! A signature, compiled: everything about it that does not depend on a call, made once.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use peregrine_core::{JsonSchema, Message, ResponseFormat, ToolSpec};

use crate::DefinitionError;
use crate::media::MediaKind;
use crate::plan::{ANSWER_TOOL, Plan};
use crate::shape::{Builder, Kind, NodeId, ObjectField, Rest, Shape};
use crate::signature::Judge;
use crate::spec::{Field, Side, SignatureSpec, Type};

/// Goes into every hash; changes when the same definition is to count as another signature.
const VERSION: &str = "peregrine signature 1";

/// A compiled signature. Made by [`SignatureSpec::compile`], [`parse`](crate::parse) or `#[derive(Signature)]`.
pub struct Compiled {
    name: String,
    instruction: String,
    inputs: Vec<FieldInfo>,
    outputs: Vec<FieldInfo>,
    input_shape: Shape,
    shape: Arc<Shape>,
    input_schema: JsonSchema,
    schema: JsonSchema,
    is_strict: bool,
    digest: Digest,
    judge: Option<Judge>,
    /// One for each plan, in the order of `Plan::ALL`.
    system: [Arc<Message>; Plan::ALL.len()],
    format: ResponseFormat,
    answer_tool: Arc<[ToolSpec]>,
}

impl Compiled {
    pub(crate) fn new(spec: &SignatureSpec, judge: Option<Judge>) -> Result<Self, DefinitionError> {
        let SignatureSpec {
            name,
            instruction,
            inputs,
            outputs,
        } = spec;
        check_name(name, '-')?;
        let (inputs, input_shape) = side(name, "inputs", Side::Input, inputs)?;
        let (outputs, shape) = side(name, "outputs", Side::Output, outputs)?;
        let schema = schema(name, &shape)?;
        let input_schema = self::schema(name, &input_shape)?;
        let is_strict = shape.can_be_strict();
        let instruction = render_instruction(instruction, &inputs, &outputs, &shape);
        let sketch = shape.sketch();
        let system =
            Plan::ALL.map(|plan| Arc::new(Message::system(format!("{instruction}{}", plan.told(&sketch)))));
        let whole = system[Plan::Prompt as usize].text();
        let digest = Digest::of(&[VERSION, name, &whole, input_schema.as_str(), schema.as_str()]);
        let format = ResponseFormat::Schema {
            name: name.clone(),
            schema: schema.clone(),
            strict: is_strict,
        };
        let tool = ToolSpec::new(ANSWER_TOOL, "Gives the final answer.", schema.clone());
        Ok(Self {
            name: name.clone(),
            instruction,
            inputs,
            outputs,
            input_shape,
            shape: Arc::new(shape),
            input_schema,
            schema,
            is_strict,
            digest,
            judge,
            system,
            format,
            answer_tool: Arc::from([if is_strict { tool.with_strict(true) } else { tool }]),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the model is told to do, with the inputs and outputs and what they hold. Plans add how to answer; see
    /// [`system`](Self::system).
    pub fn instruction(&self) -> &str {
        &self.instruction
    }

    /// The inputs, in order.
    pub fn inputs(&self) -> &[FieldInfo] {
        &self.inputs
    }

    /// The outputs, in order.
    pub fn outputs(&self) -> &[FieldInfo] {
        &self.outputs
    }

    /// The JSON Schema of an answer.
    pub fn schema(&self) -> &JsonSchema {
        &self.schema
    }

    /// The JSON Schema of the inputs; media stand in it as any value.
    pub fn input_schema(&self) -> &JsonSchema {
        &self.input_schema
    }

    /// Whether providers' strict modes can guarantee the schema: it has no maps, tuples or free values. Else the
    /// schema is sent without asking for strictness.
    pub fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// The same for the same definition in every process and on every machine; another one if anything changes that a
    /// model or a caller can see.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The system message for a plan.
    pub fn system(&self, plan: Plan) -> &Arc<Message> {
        &self.system[plan as usize]
    }

    /// Whether the outputs' types take fields that fit.
    pub(crate) fn judge(&self) -> Option<Judge> {
        self.judge
    }

    pub(crate) fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    pub(crate) fn input_shape(&self) -> &Shape {
        &self.input_shape
    }

    pub(crate) fn format(&self) -> &ResponseFormat {
        &self.format
    }

    pub(crate) fn answer_tool(&self) -> &Arc<[ToolSpec]> {
        &self.answer_tool
    }
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled")
            .field("name", &self.name)
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// An input or output of a compiled signature.
pub struct FieldInfo {
    name: Arc<str>,
    description: Arc<str>,
    type_name: Box<str>,
    pub(crate) media: Option<MediaKind>,
    pub(crate) node: NodeId,
    /// Whether values must be checked against constraints that their Rust type does not know.
    pub(crate) is_constrained: bool,
    /// Whether values hold maps or sets, whose order must be settled.
    pub(crate) has_maps: bool,
}

impl FieldInfo {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it holds; empty if its author did not say.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Its type in words, such as `integer from 1 to 5`.
    pub fn type_name(&self) -> &str {
        &self.type_name
    }

    /// The kind of media it takes, if it does.
    pub fn media(&self) -> Option<MediaKind> {
        self.media
    }
}

impl fmt::Debug for FieldInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.type_name)
    }
}

/// A signature's hash: 256 bits of BLAKE3, shown in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    fn of(parts: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            // The length keeps parts apart.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Compiles the inputs or the outputs.
fn side(
    signature: &str,
    word: &'static str,
    side: Side,
    fields: &[Field],
) -> Result<(Vec<FieldInfo>, Shape), DefinitionError> {
    if fields.is_empty() {
        return Err(DefinitionError::NoFields {
            signature: signature.to_owned(),
            side: word,
        });
    }
    let mut builder = Builder::new(side);
    let mut objects: Vec<ObjectField> = Vec::new();
    let mut media = Vec::new();
    for field in fields {
        check_name(&field.name, '_')?;
        if objects.iter().any(|known| *known.name == *field.name) {
            return Err(DefinitionError::DuplicateField {
                signature: signature.to_owned(),
                field: field.name.clone(),
            });
        }
        let kind = media_kind(&field.ty).filter(|_| side == Side::Input);
        media.push(kind);
        let any = Field::new(field.name.clone(), Type::Any).with_description(field.description.clone());
        let node = builder.field(if kind.is_some() { &any } else { field })?;
        objects.push(crate::shape::object_field(field, node));
    }
    let shape = builder.finish(objects)?;
    let infos = shape
        .root_object()
        .fields
        .iter()
        .zip(fields)
        .zip(media)
        .map(|((object, field), media)| FieldInfo {
            name: object.name.clone(),
            description: object.description.clone().unwrap_or_else(|| Arc::from("")),
            type_name: match media {
                Some(kind) => Box::from(kind.as_str()),
                None => shape.describe(object.node).into_boxed_str(),
            },
            media,
            node: object.node,
            is_constrained: !field.constraints.is_empty(),
            has_maps: media.is_none() && has_maps(&shape, object.node),
        });
    Ok((infos.collect(), shape))
}

fn media_kind(ty: &Type) -> Option<MediaKind> {
    match ty {
        Type::Image => Some(MediaKind::Image),
        Type::Audio => Some(MediaKind::Audio),
        Type::Document => Some(MediaKind::Document),
        Type::List(inner) | Type::Optional(inner) => media_kind(inner),
        _ => None,
    }
}

fn has_maps(shape: &Shape, from: NodeId) -> bool {
    shape.any_below(from, |kind| match kind {
        Kind::Object(rule) => !matches!(rule.rest, Rest::Closed),
        Kind::List(rule) => rule.unique,
        _ => false,
    })
}

/// Names of signatures and fields go into schemas, tags and headers, so they are plain.
fn check_name(name: &str, also: char) -> Result<(), DefinitionError> {
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.len() > 64 {
        "it has more than 64 characters"
    } else if name.starts_with(|c: char| c.is_ascii_digit()) {
        "it begins with a digit"
    } else if !name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == also)
    {
        "only letters, digits and `_` can stand in it"
    } else {
        return Ok(());
    };
    Err(DefinitionError::Name {
        name: crate::error::excerpt(name, 80),
        problem,
    })
}

fn schema(signature: &str, shape: &Shape) -> Result<JsonSchema, DefinitionError> {
    shape
        .to_json_schema()
        .map(JsonSchema::new)
        .ok_or_else(|| DefinitionError::Schema {
            field: signature.to_owned(),
            place: "#".to_owned(),
            problem: "it is too large when written out; name types that contain each other".to_owned(),
        })
}

fn render_instruction(
    instruction: &str,
    inputs: &[FieldInfo],
    outputs: &[FieldInfo],
    shape: &Shape,
) -> String {
    let mut text = match instruction.trim() {
        "" => format!("From {}, produce {}.", names(inputs), names(outputs)),
        instruction => instruction.to_owned(),
    };
    text.push_str("\n\nYou are given, each between tags of its name:");
    inputs.iter().for_each(|field| render_field(&mut text, field));
    text.push_str("\n\nAnswer with:");
    for field in outputs {
        render_field(&mut text, field);
        if let Kind::OneOf(choices) = shape.kind(field.node) {
            for choice in choices {
                if let Some(told) = &choice.description {
                    let _ = write!(text, "\n  - {}: {}", choice.value, continued(told, "    "));
                }
            }
        }
    }
    text
}

fn render_field(text: &mut String, field: &FieldInfo) {
    let _ = write!(text, "\n- `{}` ({})", field.name(), field.type_name());
    if !field.description().is_empty() {
        let _ = write!(text, ": {}", continued(field.description(), "  "));
    }
}

/// A text of several lines within a list.
fn continued(text: &str, indent: &str) -> String {
    text.trim().replace('\n', &format!("\n{indent}"))
}

fn names(fields: &[FieldInfo]) -> String {
    let names: Vec<String> = fields.iter().map(|field| format!("`{}`", field.name())).collect();
    match names.as_slice() {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => names.concat(),
    }
}
