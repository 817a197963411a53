//! The runner that measures times.

fn main() -> std::process::ExitCode {
    peregrine_benches::runner::main(None)
}
