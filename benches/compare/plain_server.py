"""A typical simple text-to-image server: FastAPI and one diffusers pipeline behind a lock.

    python plain_server.py FOLDER PORT THREADS
"""

import io
import sys
import threading

import torch
import uvicorn
from diffusers import StableDiffusionPipeline
from fastapi import FastAPI, Response
from pydantic import BaseModel

FOLDER, PORT, THREADS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

torch.set_num_threads(THREADS)
pipeline = StableDiffusionPipeline.from_pretrained(FOLDER, torch_dtype=torch.float32, safety_checker=None)
pipeline.set_progress_bar_config(disable=True)
computing = threading.Lock()
app = FastAPI()


class GenerateImage(BaseModel):
    prompt: str
    steps: int = 20
    guidance_scale: float = 3.0
    seed: int = 0


@app.post("/v1/images.png")
def generate(request: GenerateImage):
    # FastAPI runs this function in a thread pool. The pipeline's scheduler has state, so requests run one at a time.
    with computing:
        image = pipeline(
            request.prompt, num_inference_steps=request.steps, guidance_scale=request.guidance_scale,
            generator=torch.Generator().manual_seed(request.seed),
        ).images[0]
    file = io.BytesIO()
    image.save(file, format="PNG")
    return Response(file.getvalue(), media_type="image/png")


@app.get("/health")
async def health():
    return {"status": "ok"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning")
