//! The runner that counts allocations: naming `allocation_counter` puts its allocator into this program.

fn main() -> std::process::ExitCode {
    peregrine_benches::runner::main(Some(|work| {
        let counted = allocation_counter::measure(work);
        (counted.count_total, counted.bytes_total)
    }))
}
