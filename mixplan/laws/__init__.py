"""Measurements become fitted laws with intervals; forecasts; backtest. numpy and scipy only."""
