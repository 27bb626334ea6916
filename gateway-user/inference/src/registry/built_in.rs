//! The models that ship, built in: a daemon without any folder of models has them.

use gateway_core::ladder::Task;

use crate::artefact::BuiltIn;

/// Of a task; `None`: none ships.
pub(super) fn built_in(task: Task) -> Option<&'static BuiltIn> {
    match task {
        Task::Fault => Some(&FAULT),
        Task::Forecast => Some(&FORECAST),
        Task::Classes => None,
    }
}

macro_rules! file {
    ($folder:literal, $name:literal) => {
        ($name, include_bytes!(concat!("../../../../", $folder, "/", $name)) as &[u8])
    };
}

static FAULT: BuiltIn = BuiltIn {
    folder: "models/fault",
    files: &[
        file!("models/fault", "forest.json"),
        file!("models/fault", "features.json"),
        file!("models/fault", "golden.json"),
        file!("models/fault", "metrics.json"),
    ],
};

static FORECAST: BuiltIn = BuiltIn {
    folder: "models/forecast",
    files: &[
        file!("models/forecast", "model.onnx"),
        file!("models/forecast", "features.json"),
        file!("models/forecast", "golden.json"),
        file!("models/forecast", "metrics.json"),
    ],
};
