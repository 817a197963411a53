//! Functions of many shapes with `#[tool]`, and the exact bytes that a model sees of them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use peregrine_core::{MediaPart, Scope};
use peregrine_tools::{
    Danger, Effect, Tool, ToolContext, ToolError, ToolErrorKind, ToolOutput, schemars, tool,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{call, now, only};

#[derive(Deserialize, Serialize, schemars::JsonSchema)]
struct City {
    /// Its name.
    name: String,
    /// Two letters.
    #[schemars(length(equal = 2))]
    country: Option<String>,
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unit {
    Celsius,
    Fahrenheit,
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Shape {
    Circle { radius: f64 },
    Square { side: f64 },
}

/// Forecasts the weather.
///
/// Knows nothing of storms.
#[tool(effect = "read_only", danger = "safe", timeout_ms = 5000, version = "3")]
async fn forecast(
    /// Where.
    city: City,
    /// For how many days.
    #[arg(default = 3)]
    #[schemars(range(min = 1, max = 10))]
    days: u8,
    #[arg(description = "Celsius if left out.")] unit: Option<Unit>,
    tags: &[String],
    context: &ToolContext,
) -> Result<String, fmt::Error> {
    let unit = match unit {
        None | Some(Unit::Celsius) => "C",
        Some(Unit::Fahrenheit) => "F",
    };
    let id = &context.call_id;
    Ok(format!("{} {days} {unit} {} {id}", city.name, tags.join("+")))
}

#[test]
fn the_model_sees_these_bytes() {
    let specs = only(forecast()).specs();
    let text = serde_json::to_string(&specs[0]).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"name":"forecast","description":"Forecasts the weather.\n\nKnows nothing of storms.","parameters":{"#,
            r#""type":"object","additionalProperties":false,"properties":{"#,
            r##""city":{"$ref":"#/$defs/City","description":"Where."},"##,
            r#""days":{"type":"integer","format":"uint8","minimum":1,"maximum":10,"#,
            r#""description":"For how many days.","default":3},"#,
            r##""unit":{"anyOf":[{"$ref":"#/$defs/Unit"},{"type":"null"}],"description":"Celsius if left out."},"##,
            r#""tags":{"type":"array","items":{"type":"string"}}},"required":["city","tags"],"$defs":{"#,
            r#""City":{"type":"object","properties":{"name":{"type":"string","description":"Its name."},"#,
            r#""country":{"type":["string","null"],"description":"Two letters.","minLength":2,"maxLength":2}},"#,
            r#""required":["name"]},"Unit":{"type":"string","enum":["celsius","fahrenheit"]}}}}"#,
        )
    );
    assert_eq!(
        specs[0].parameters.as_str(),
        serde_json::to_string(&specs[0].parameters).unwrap()
    );
}

#[test]
fn what_is_declared_is_in_the_info_and_the_rest_is_cautious() {
    let tool = forecast();
    let info = tool.info();
    assert_eq!((info.effect(), info.danger()), (Effect::ReadOnly, Danger::Safe));
    assert_eq!(
        (info.timeout(), info.version()),
        (Some(Duration::from_secs(5)), "3")
    );

    /// Says nothing about itself.
    #[tool]
    async fn undeclared() {}
    let tool = undeclared();
    let info = tool.info();
    assert_eq!(
        (info.effect(), info.danger()),
        (Effect::SideEffect, Danger::Medium)
    );
    assert_eq!(
        (info.timeout(), info.version()),
        (None, env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn arguments_arrive() {
    let registry = only(forecast());
    let output = call(
        &registry,
        r#"{"city": {"name": "Oslo"}, "tags": ["a", "b"], "unit": "fahrenheit"}"#,
    )
    .unwrap();
    assert_eq!(output.text(), "Oslo 3 F a+b call-1");
    let output = call(
        &registry,
        r#"{"tags": [], "days": 4.0, "city": {"name": "é", "country": null}}"#,
    )
    .unwrap();
    assert_eq!(output.text(), "é 4 C  call-1");
    let error = call(
        &registry,
        r#"{"city": {"name": 1, "country": "NOR"}, "days": 11, "when": "now"}"#,
    )
    .unwrap_err();
    assert_eq!(
        error.for_model().unwrap(),
        "cannot call `forecast`, its arguments are not right:\n\
         - /tags: expected an array (required), found nothing\n\
         - /city/name: expected a string, found number 1\n\
         - /city/country: expected at most 2 characters, found string of 3 characters (\"NOR\")\n\
         - /days: expected at most 10, found number 11\n\
         - /when: expected no such property; there are `city`, `days`, `tags`, `unit`, found string of 3 characters"
    );
}

#[test]
fn the_function_can_still_be_called() {
    let context = ToolContext::new("by hand");
    let city = City {
        name: "Rome".to_owned(),
        country: None,
    };
    let text = now(forecast().run(city, 1, None, &["x".to_owned()], &context)).unwrap();
    assert_eq!(text, "Rome 1 C x by hand");
}

/// Adds.
#[tool(name = "add-numbers", description = "Adds two numbers.", strict = true)]
fn add(a: f64, #[arg(default)] b: f64) -> f64 {
    a + b
}

#[test]
fn functions_need_not_be_async_and_names_can_be_given() {
    let registry = only(add());
    assert_eq!(registry.names().collect::<Vec<_>>(), ["add-numbers"]);
    assert_eq!(registry.specs()[0].description, "Adds two numbers.");
    assert_eq!(registry.specs()[0].strict, Some(true));
    assert_eq!(call(&registry, r#"{"a": 1}"#).unwrap().text(), "1.0");
    assert_eq!(add().run(1.0, 2.0), 3.0);
}

/// Takes signs.
#[tool]
async fn signs(
    r#type: String,
    #[arg(name = "while")] until: bool,
    mut count: u32,
    shape: Shape,
    #[arg(default = "none")] note: &str,
    #[serde(alias = "by")] by_whom: Option<String>,
    map: BTreeMap<String, i64>,
    #[allow(unused_variables, reason = "to see that it is kept")] ignored: Option<Value>,
) -> Value {
    count += 1;
    let area = match shape {
        Shape::Circle { radius } => radius,
        Shape::Square { side } => side * side,
    };
    json!([r#type, until, count, area, note, by_whom, map])
}

#[test]
fn arguments_of_all_kinds() {
    let registry = only(signs());
    let text = r#"{"type": "t", "while": true, "count": 1, "shape": {"kind": "square", "side": 2}, "map": {"k": -1}}"#;
    assert_eq!(
        call(&registry, text).unwrap().text(),
        r#"["t",true,2,4.0,"none",null,{"k":-1}]"#
    );
    let text =
        r#"{"type": "t", "while": true, "count": 1, "shape": {"kind": "triangle"}, "map": {"k": "v"}}"#;
    assert_eq!(
        call(&registry, text).unwrap_err().to_string(),
        "cannot call `signs`: /shape/kind: expected one of \"circle\", \"square\", found string of 8 characters; \
         /map/k: expected an integer, found string of 1 character"
    );
}

#[test]
fn what_the_type_refuses_is_told_too() {
    // The schema of a `u32` has no upper bound but its format; that of a `NonEmpty` says nothing of its rule.
    #[derive(Debug)]
    struct NonEmpty(String);
    impl<'de> Deserialize<'de> for NonEmpty {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            if text.is_empty() {
                Err(serde::de::Error::custom("must not be empty"))
            } else {
                Ok(Self(text))
            }
        }
    }
    impl schemars::JsonSchema for NonEmpty {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "NonEmpty".into()
        }
        fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
            schemars::json_schema!({"type": "string"})
        }
    }
    /// Takes what is narrower than its schema.
    #[tool]
    async fn narrow(texts: Vec<NonEmpty>) -> usize {
        texts.iter().map(|text| text.0.len()).sum()
    }

    let error = call(&only(narrow()), r#"{"texts": ["a", ""]}"#).unwrap_err();
    assert_eq!(error.kind(), ToolErrorKind::InvalidArguments);
    assert_eq!(
        error.for_model().unwrap(),
        "cannot call `narrow`, its arguments are not right:\n\
         - /texts/1: expected a value that this argument's type takes, found string of 0 characters (must not be empty)"
    );
}

/// An error that knows how it is to be told.
enum Failure {
    Repairable,
    Broken,
}

impl From<Failure> for ToolError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Repairable => Self::temporary("try again"),
            Failure::Broken => Self::fatal("the disk is full"),
        }
    }
}

type Alias<T> = Result<T, String>;

#[test]
fn anything_sensible_can_be_returned() {
    /// .
    #[tool]
    async fn nothing() {}
    /// .
    #[tool]
    async fn text() -> &'static str {
        "plain"
    }
    /// .
    #[tool]
    async fn value() -> Value {
        json!({"b": 1, "a": 2})
    }
    /// .
    #[tool]
    async fn list() -> Vec<Option<bool>> {
        vec![Some(true), None]
    }
    /// .
    #[tool]
    async fn serialised() -> Result<City, ToolError> {
        Ok(City {
            name: "Oslo".to_owned(),
            country: None,
        })
    }
    /// .
    #[tool]
    async fn image() -> MediaPart {
        MediaPart::bytes("image/png", &b"png"[..])
    }
    /// .
    #[tool]
    async fn output() -> Result<ToolOutput, std::convert::Infallible> {
        Ok(ToolOutput::from("a").with_text("b"))
    }
    /// .
    #[tool]
    async fn alias(fail: bool) -> Alias<String> {
        if fail {
            Err("as asked".to_owned())
        } else {
            Ok("fine".to_owned())
        }
    }
    /// .
    #[tool]
    async fn own(broken: bool) -> Result<(), Failure> {
        Err(if broken {
            Failure::Broken
        } else {
            Failure::Repairable
        })
    }

    let text_of = |tool: peregrine_tools::Registry| call(&tool, "").unwrap().text();
    assert_eq!(call(&only(nothing()), "{}").unwrap(), ToolOutput::default());
    assert_eq!(text_of(only(text())), "plain");
    assert_eq!(text_of(only(value())), r#"{"b":1,"a":2}"#);
    assert_eq!(text_of(only(list())), "[true,null]");
    assert_eq!(text_of(only(serialised())), r#"{"name":"Oslo","country":null}"#);
    assert_eq!(call(&only(image()), "").unwrap().parts.len(), 1);
    assert_eq!(text_of(only(output())), "a\nb");
    assert_eq!(call(&only(alias()), r#"{"fail": false}"#).unwrap().text(), "fine");

    let error = call(&only(alias()), r#"{"fail": true}"#).unwrap_err();
    assert_eq!(
        (error.kind(), error.for_model().as_deref()),
        (ToolErrorKind::Failed, Some("as asked"))
    );
    let error = call(&only(own()), r#"{"broken": false}"#).unwrap_err();
    assert!(error.is_retryable() && error.for_model().as_deref() == Some("try again"));
    let error = call(&only(own()), r#"{"broken": true}"#).unwrap_err();
    assert!(error.is_fatal() && error.for_model().is_none() && error.to_string() == "the disk is full");
}

#[test]
fn the_context_is_passed_by_value_or_by_reference_and_under_another_name() {
    use peregrine_tools::ToolContext as Call;

    /// .
    #[tool]
    async fn by_value(context: ToolContext, a: u8) -> String {
        format!(
            "{} {a} {:?}",
            context.idempotency_key,
            context.scope.map(|scope| scope.tenant)
        )
    }
    /// .
    #[tool]
    async fn renamed(#[arg(context)] one: &Call, two: &ToolContext) -> bool {
        one.call_id == two.call_id
    }

    let registry = only(by_value());
    assert_eq!(registry.specs()[0].parameters.value()["required"], json!(["a"]));
    let valid = registry
        .validate(&peregrine_core::ToolCall::new("c", "by_value", r#"{"a": 1}"#))
        .unwrap();
    let context = valid
        .context()
        .with_idempotency_key("run-7/c")
        .with_scope(Scope::tenant("acme").unwrap());
    assert_eq!(
        now(valid.run(context, None)).unwrap().text(),
        r#"run-7/c 1 Some("acme")"#
    );
    assert_eq!(call(&only(renamed()), "").unwrap().text(), "true");
}

mod elsewhere {
    //! A tool in a module, seen from outside, with its crate under another path.

    pub(super) mod deeper {
        use peregrine_tools as somewhere;

        mod reexport {
            pub(super) use super::somewhere as tools;
        }

        /// Is visible.
        #[somewhere::tool(crate = reexport::tools)]
        pub(crate) async fn visible(
            /// More than one line
            /// of it.
            a: u8,
        ) -> u8 {
            a
        }

        /// Is not there.
        #[somewhere::tool]
        #[cfg(any())]
        async fn absent(a: Missing) {}
    }
}

#[test]
fn tools_can_live_in_modules() {
    let registry = only(elsewhere::deeper::visible());
    assert_eq!(call(&registry, r#"{"a": 7}"#).unwrap().text(), "7");
    let specs = registry.specs();
    let description = &specs[0].parameters.value()["properties"]["a"]["description"];
    assert_eq!(description, "More than one line\nof it.");
}
