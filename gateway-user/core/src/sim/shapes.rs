//! What requests cost and how load changes, as measured elsewhere.
//!
//! Where the measurements themselves are not at hand, generators fitted to them take their place.

use super::traffic::{ClassSpec, Cost, Profile, ProfileSpec};

/// Shapes that scenarios are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Shapes {
    /// Requests of one operation of a web shop; mean one.
    pub web: Vec<ClassSpec>,
    /// Of all its operations, in classes of cost; mean one.
    pub mixed: Vec<ClassSpec>,
    /// Requests to a language model: a cost of one is a second of an otherwise idle backend.
    pub llm: Vec<ClassSpec>,
    /// A day's load, by share of the day, relative to its peak.
    pub day: Vec<f64>,
}

/// `ListRecommendations` of OnlineBoutique in 2022-08-22 of Nezha (Yu et al., FSE 2023), 1,372
/// spans: deviation of the logarithm. Of the eight operations with more than a thousand spans it
/// is in the middle.
const WEB_SIGMA: f64 = 0.61;

/// Operations of OnlineBoutique but for the front page, same day, 21,519 spans: class by the mean of
/// the operation (under 3 ms, under 10 ms, under 100 ms, and `PlaceOrder`), name, share of the
/// requests, mean relative to the mean of all (7.2 ms), deviation of the logarithm.
const MIXED: [(&str, &str, f64, f64, f64); 14] = [
    ("light", "/hipstershop.ShippingService/ShipOrder", 0.0032, 0.0247, 0.37),
    ("light", "/hipstershop.PaymentService/Charge", 0.0032, 0.0391, 0.18),
    ("light", "/hipstershop.ShippingService/GetQuote", 0.0224, 0.0655, 0.39),
    ("light", "/hipstershop.EmailService/SendOrderConfirmation", 0.0032, 0.0687, 0.12),
    ("light", "/hipstershop.CurrencyService/GetSupportedCurrencies", 0.0748, 0.0791, 0.52),
    ("light", "/hipstershop.CartService/EmptyCart", 0.0032, 0.201, 0.26),
    ("light", "/hipstershop.CartService/GetCart", 0.0748, 0.213, 0.31),
    ("light", "/hipstershop.CartService/AddItem", 0.0089, 0.351, 0.32),
    ("medium", "/hipstershop.CurrencyService/Convert", 0.1997, 0.598, 0.94),
    ("medium", "/hipstershop.ProductCatalogService/GetProduct", 0.4125, 0.923, 0.68),
    ("medium", "/hipstershop.ProductCatalogService/ListProducts", 0.0748, 1.153, 0.68),
    ("heavy", "/hipstershop.RecommendationService/ListRecommendations", 0.0638, 1.758, 0.61),
    ("heavy", "/hipstershop.AdService/GetAds", 0.0523, 2.004, 0.70),
    ("checkout", "/hipstershop.CheckoutService/PlaceOrder", 0.0032, 52.8, 0.85),
];

/// Classes of [`MIXED`], in the order of their cost.
const MIXED_CLASSES: [&str; 4] = ["light", "medium", "heavy", "checkout"];

/// Tokens of the two services in Azure's LLM inference traces of 2023 (Patel et al., "Splitwise",
/// ISCA 2024): share of the requests, then mean and deviation of the logarithm of prompt and
/// generated tokens.
const LLM: [(&str, f64, [f64; 2], [f64; 2]); 2] =
    [("chat", 0.687, [6.66, 0.99], [4.95, 0.87]), ("code", 0.313, [7.00, 1.35], [2.78, 0.83])];

/// Seconds to read a prompt's token, and to write one: a 70B model on one node of eight A100 reads
/// some 10,000 tokens a second and writes one every 20 to 50 ms a request ("Splitwise", section 3).
pub const PREFILL_PER_TOKEN: f64 = 0.1e-3;
/// See [`PREFILL_PER_TOKEN`].
pub const DECODE_PER_TOKEN: f64 = 20e-3;

/// Requests of the fitted tables of a language model's classes.
const LLM_DRAWS: usize = 2000;

/// Mean queries a minute by hour of the first day of `mongo-01` in Microsoft's
/// cloud-monitoring-dataset, relative to that day's peak.
const DAY: [f64; 24] = [
    0.47, 0.57, 0.48, 0.30, 0.37, 0.55, 0.63, 0.86, 0.90, 0.55, 0.54, 0.62, 0.55, 0.51, 0.42, 0.35,
    0.29, 0.26, 0.31, 0.33, 0.25, 0.21, 0.28, 0.40,
];

impl Shapes {
    /// From the generators.
    pub fn fitted() -> Shapes {
        let web = Cost::LogNormal { mean: 1.0, sigma: WEB_SIGMA };
        Shapes::new(web, fitted_mixed(), fitted_llm(), DAY.to_vec())
    }

    /// From the costs of one operation, classes of the costs of many, those of a language model,
    /// and a day's load.
    pub fn new(web: Cost, mixed: Vec<ClassSpec>, llm: Vec<ClassSpec>, day: Vec<f64>) -> Shapes {
        let web = vec![ClassSpec::new("request", 1.0, web)];
        Shapes { web: of_mean_one(web), mixed: of_mean_one(mixed), llm, day }
    }

    /// A day's load in this many seconds.
    pub fn day_in(&self, seconds: f64) -> Profile {
        let step = seconds / self.day.len().max(1) as f64;
        let point = |(index, load): (usize, &f64)| (index as f64 * step, *load);
        Profile::through(self.day.iter().enumerate().map(point).collect())
    }
}

/// What a request of so many tokens costs.
pub fn llm_work(prompt: f64, generated: f64) -> super::Work {
    let head = prompt * PREFILL_PER_TOKEN + DECODE_PER_TOKEN;
    super::Work { head, whole: head + (generated - 1.0).max(0.0) * DECODE_PER_TOKEN }
}

fn fitted_mixed() -> Vec<ClassSpec> {
    let of = |class: &'static str| {
        let operations = MIXED.iter().filter(|operation| operation.0 == class);
        let profile = |&(_, path, share, mean, sigma): &(&str, &str, f64, f64, f64)| {
            ProfileSpec::new(path, share, Cost::LogNormal { mean, sigma })
        };
        ClassSpec::of(class, operations.map(profile).collect())
    };
    MIXED_CLASSES.map(of).into()
}

fn fitted_llm() -> Vec<ClassSpec> {
    let mut chance = super::Chance::new(1);
    let mut class =
        |&(name, share, prompt, generated): &(&'static str, f64, [f64; 2], [f64; 2])| {
            let mut tokens = |[mean, sigma]: [f64; 2]| (mean + sigma * chance.normal()).exp();
            // The services took 4 to 8 thousand tokens at most.
            let all = (0..LLM_DRAWS)
                .map(|_| llm_work(tokens(prompt).min(8e3), tokens(generated).min(2e3)));
            ClassSpec::new(name, share, Cost::Table(all.collect()))
        };
    LLM.iter().map(&mut class).collect()
}

fn of_mean_one(classes: Vec<ClassSpec>) -> Vec<ClassSpec> {
    let shares: f64 = classes.iter().map(|class| class.share).sum();
    let mean: f64 = classes.iter().map(|class| class.share / shares * class.mean()).sum();
    classes.into_iter().map(|class| class.scaled(1.0 / mean)).collect()
}
