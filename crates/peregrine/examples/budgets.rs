//! Budgets: what a run may spend, and what several runs may spend together: `cargo run -p peregrine --example budgets`.
//! Needs no key and no network.
#![allow(clippy::print_stdout, reason = "an example shows its result")]

use peregrine::agent::Error;
use peregrine::core::Price;
use peregrine::prelude::*;
use peregrine::{Cost, Input, NanoUsd, PriceTable};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), peregrine::RunError> {
    // $2 for a million tokens in, $8 out: a price for the example, the offline model is free.
    let price = Price::per_million(NanoUsd(2_000_000_000), NanoUsd(8_000_000_000));
    let model = OfflineModel::new();
    let prices = PriceTable::new().with(model.info().provider(), model.info().model(), price);
    let agent = Agent::new(model)
        .with_prices(prices)
        .with_budget(BudgetLimits::default().with_tokens(5_000));

    // Everything that is done for one request draws on its budget: here half a cent.
    let request = Budget::named("request", BudgetLimits::default().with_cost(NanoUsd(5_000_000)));
    for question in 1.. {
        let input = Input::from(format!(
            "Question {question}: how fast is it? The peregrine dives at 320 km/h."
        ));
        match agent.run(input.with_budget(request.clone())).await {
            Ok(output) => {
                let Cost::Priced(cost) = output.report.cost else {
                    break;
                };
                println!("answer {question} cost {cost}");
            }
            Err(error) => {
                let Error::Limit(limit) = error.error() else {
                    return Err(error);
                };
                println!("stopped before call {question}: {limit}");
                break;
            }
        }
    }
    let status = request.status();
    println!("{} of {} spent", status.spent.cost, NanoUsd(5_000_000));
    Ok(())
}
