//! Cell types predicted from codes by quadratic discriminant analysis: one Gaussian a type, and accuracies along a tree of types.

mod folds;
pub mod hierarchy;
pub mod qda;

pub use folds::{Accuracy, stratified_folds};
pub use hierarchy::{Hierarchy, Level, Merging};
pub use qda::{Covariance, Qda, Scores, Settings, cross_validate, hold_out};
