//! The `#[tool]` attribute: a plain function becomes a tool.
//!
//! Algorithm: `options` reads what is in the parentheses, `signature` takes the function apart and strips from it
//! what only the attribute understands, `expand` writes the tool. Everything that is wrong is told at once, each at
//! its place. Nothing here knows types; conversions are left to method lookup in the code that is written.

use proc_macro::TokenStream;

mod expand;
mod options;
mod signature;
#[cfg(test)]
mod tests;

/// Makes a tool of a function, `async` or not.
///
/// What was `add(a, b)` becomes `add()`, which gives the tool: `Registry::builder().with(add())`. What the function
/// does stays callable by hand as `add().run(a, b)`.
///
/// # The function
///
/// - Its documentation is the description that the model reads. It must have one.
/// - Its arguments are the tool's, and their documentation describes them. Types need `Deserialize` and `JsonSchema`;
///   `&str`, `&[T]` and `&T` are read as `String`, `Vec<T>` and `T`. `Option` may be left out. Arguments that the
///   function does not have are refused.
/// - An argument of type `ToolContext` or `&ToolContext` is not the model's: it is the context of the call.
/// - It returns anything that becomes a `ToolOutput` (text, `serde_json::Value`, an image, `()`), or else anything that
///   serialises, as JSON; or a `Result` of that. An error that becomes a `ToolError` is that error; any other error
///   that can be displayed is told to the model.
/// - It must not be generic, and takes no `self`: for state, there is `FnTool`.
///
/// # Options
///
/// | option | meaning | default |
/// |---|---|---|
/// | `effect = "read_only"`, `"idempotent"` or `"side_effect"` | what running it does to the world | `"side_effect"` |
/// | `danger = "safe"`, `"low"`, `"medium"`, `"high"` or `"critical"` | how much harm it can do | `"medium"` |
/// | `timeout_ms = 5000` | how long one call may take | no limit |
/// | `name = "add_numbers"` | its name: 1 to 64 of `A-Z a-z 0-9 _ -` | the function's |
/// | `description = ".."` | what the model reads | the documentation |
/// | `version = "2"` | an approval holds for one version | that of the package |
/// | `strict = true` | the provider is to guarantee that arguments fit | left to the provider |
/// | `crate = path::to::peregrine_tools` | where the tools crate is | where the attribute comes from |
///
/// What is not declared is assumed to be dangerous: a tool without options runs only where it is allowed by name.
///
/// On an argument:
///
/// | attribute | meaning |
/// |---|---|
/// | `#[arg(description = "..")]` | what the model reads, instead of the documentation |
/// | `#[arg(default)]`, `#[arg(default = 3)]` | may be left out, and is then this |
/// | `#[arg(name = "type")]` | its name for the model |
/// | `#[arg(context)]` | is the context, under whatever name its type is imported |
/// | `#[schemars(..)]`, `#[serde(..)]` | as on a field: `#[schemars(range(min = 1, max = 10))]` is enforced |
///
/// # Examples
///
/// ```
/// use peregrine_tools::{Registry, ToolContext, schemars, tool};
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// #[serde(rename_all = "snake_case")]
/// enum Unit {
///     Celsius,
///     Fahrenheit,
/// }
///
/// /// Forecasts the highest temperature of each day.
/// #[tool(effect = "read_only", danger = "safe", timeout_ms = 5000)]
/// async fn forecast(
///     /// The name of a city.
///     city: &str,
///     #[arg(default = 3)]
///     #[schemars(range(min = 1, max = 10))]
///     days: u8,
///     /// Celsius if left out.
///     unit: Option<Unit>,
///     context: &ToolContext,
/// ) -> Result<Vec<f64>, std::io::Error> {
///     let high = if matches!(unit, Some(Unit::Fahrenheit)) { 68.0 } else { 20.0 };
///     Ok(vec![high; days.into()])
/// }
///
/// let registry = Registry::builder().with(forecast()).build()?;
/// assert_eq!(registry.specs()[0].parameters.value()["required"], serde_json::json!(["city"]));
/// # Ok::<(), peregrine_tools::RegistryError>(())
/// ```
///
/// What cannot be an argument, or a result, does not compile:
///
/// ```compile_fail
/// # use peregrine_tools::tool;
/// struct NoSchema;
///
/// /// Takes what cannot be described.
/// #[tool]
/// async fn take(what: NoSchema) {}
/// ```
///
/// ```compile_fail
/// # use peregrine_tools::tool;
/// struct NoJson;
///
/// /// Returns what cannot be told.
/// #[tool]
/// async fn give() -> NoJson {
///     NoJson
/// }
/// ```
#[proc_macro_attribute]
pub fn tool(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::expand(
        options.into(),
        function.into(),
        &syn::parse_quote!(::peregrine_tools),
    )
    .into()
}

/// [`macro@tool`] for those who know the tools as a module of `peregrine`, which gives it out under that name.
#[doc(hidden)]
#[proc_macro_attribute]
pub fn facade_tool(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::expand(
        options.into(),
        function.into(),
        &syn::parse_quote!(::peregrine::tools),
    )
    .into()
}
