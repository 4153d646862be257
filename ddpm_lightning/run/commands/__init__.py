"""What train.py, sample.py, evaluate.py, export.py, ingest.py, show.py and inspect_data.py do."""
