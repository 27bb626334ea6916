//! The model beside the EWMA on what it was not trained on, both corrected online as in the daemon:
//! this is the daemon's code, fed with traces.

use anyhow::Result;
use gateway_core::forecast::{Forecaster, MODEL_PACE, Scored, Series};
use serde::Serialize;

use super::traces::{CHOOSE_UNTIL, LEARN_UNTIL, Trace, Use};

/// Loss and coverage of one forecaster, summed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Sum {
    /// Pinball loss over the mean rate of the judged steps, mean of the quantiles.
    pub(super) loss: f64,
    /// Share under the high quantile.
    pub(super) covered: f64,
}

/// One series and horizon.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) series: String,
    /// Seconds a step.
    pub(super) step: u64,
    /// Never learnt from or chosen by; else its last days.
    pub(super) unseen: bool,
    /// Steps ahead.
    pub(super) ahead: usize,
    pub(super) judged: usize,
    pub(super) model: Sum,
    pub(super) substitute: Sum,
    /// "It stays as it is", without a band: the loss of the last rate as all three quantiles.
    pub(super) last: f64,
}

impl Row {
    /// The model's loss over the EWMA's.
    pub(super) fn ratio(&self) -> f64 {
        self.model.loss / self.substitute.loss
    }
}

/// Which steps count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// Series that only judge, and the last days of the others.
    Judging,
    /// The days to choose by.
    Choosing,
}

/// Runs both over a trace from its first step; `None`: it does not count for this.
///
/// # Errors
/// The model cannot be asked.
pub(super) fn judge(trace: &Trace, model: &dyn Forecaster, on: On) -> Result<Option<Vec<Row>>> {
    let at = |part: f64| (trace.rates.len() as f64 * part) as usize;
    let counts = match (on, trace.is_for) {
        (On::Judging, Use::Judge) => at(0.0)..trace.rates.len(),
        (On::Judging, Use::Learn) => at(CHOOSE_UNTIL)..trace.rates.len(),
        (On::Choosing, Use::Learn) => at(LEARN_UNTIL)..at(CHOOSE_UNTIL),
        (On::Choosing, Use::Judge) => return Ok(None),
    };
    let mut series = Series::with_step(&MODEL_PACE, trace.step);
    let mut state = vec![0.0; model.spec().state];
    let mut scored: Vec<Vec<(Scored, f64)>> = vec![Vec::new(); MODEL_PACE.ahead.len()];
    for (step, rate) in trace.rates[..counts.end].iter().enumerate() {
        for outcome in series.step(*rate) {
            if counts.contains(&step) && outcome.model.is_some() {
                let last = trace.rates[step - MODEL_PACE.ahead[outcome.horizon]];
                scored[outcome.horizon].push((outcome, last));
            }
        }
        if let Some(vector) = series.vector() {
            let outputs = model.step(&[vector], &mut state)?;
            series.hear(&outputs);
        }
    }
    let row = |(horizon, scored): (usize, &Vec<(Scored, f64)>)| Row {
        series: trace.name.clone(),
        step: trace.step.as_secs(),
        unseen: trace.is_for == Use::Judge,
        ahead: MODEL_PACE.ahead[horizon],
        judged: scored.len(),
        ..sums(scored)
    };
    Ok(Some(scored.iter().enumerate().map(row).collect()))
}

fn sums(scored: &[(Scored, f64)]) -> Row {
    let came: f64 = scored.iter().map(|(outcome, _)| outcome.came).sum::<f64>().max(1e-9);
    let count = scored.len().max(1) as f64;
    let (mut model, mut substitute, mut last) = (Sum::default(), Sum::default(), 0.0);
    for (outcome, before) in scored {
        let Some(said) = outcome.model else { continue };
        for (sum, band) in [(&mut model, said), (&mut substitute, outcome.rule)] {
            sum.loss += band.loss(outcome.came) / came;
            sum.covered += f64::from(u8::from(outcome.came <= band.high)) / count;
        }
        last += (outcome.came - before).abs() / 2.0 / came;
    }
    Row {
        series: String::new(),
        step: 0,
        unseen: false,
        ahead: 0,
        judged: scored.len(),
        model,
        substitute,
        last,
    }
}

/// The geometric mean of the ratios of some rows.
pub(super) fn ratio<'a>(rows: impl Iterator<Item = &'a Row>) -> f64 {
    let (sum, count) =
        rows.fold((0.0, 0.0), |(sum, count), row| (sum + row.ratio().ln(), count + 1.0));
    (sum / count).exp()
}
