"""Logs one of each by the real client: a run with metrics, and a trace with spans, tokens, costs and an assessment. fill.sql makes many of them."""

from __future__ import annotations

import mlflow
from mlflow.entities import SpanType


@mlflow.trace(name="question", span_type=SpanType.CHAIN)
def question(text: str) -> str:
    """Answer, with a call of a model inside."""
    with mlflow.start_span("model", span_type=SpanType.CHAT_MODEL) as span:
        span.set_inputs({"messages": [{"role": "user", "content": text}]})
        span.set_outputs({"answer": text[::-1]})
        span.set_attributes(
            {
                "mlflow.llm.model": "model-7",
                "mlflow.llm.provider": "provider",
                "mlflow.chat.tokenUsage": {"input_tokens": 120, "output_tokens": 30, "total_tokens": 150},
                "mlflow.llm.cost": {"input_cost": 0.0012, "output_cost": 0.0009, "total_cost": 0.0021},
            }
        )
    mlflow.update_current_trace(metadata={"mlflow.trace.session": "session-1", "mlflow.trace.user": "somebody"}, tags={"stage": "benchmark"})
    return text[::-1]


mlflow.set_experiment("benchmark")
with mlflow.start_run():
    for key in range(10):
        mlflow.log_metric(f"metric{key}", 0.5, step=0)
question("What does an upgrade take? " * 20)
mlflow.flush_trace_async_logging()
mlflow.log_feedback(trace_id=mlflow.get_last_active_trace_id(), name="useful", value=True)
