"""MGIE's language side over the exchange format. Runs in LLaVA's environment: python mgie.py LLAVA WEIGHTS MLLM FOLDER

LLAVA: the code. WEIGHTS: LLaVA-7B-v1, a folder. MLLM: MGIE's mllm.pt. FOLDER: of the requests, see exchange.py.

For every request the hidden states (8, 4096), float16, with which LLaVA predicts [IMG0] .. [IMG7]; the edit head and
the diffusion model come after, in `baselines/mgie/mgie.py`. Does what apple/ml-mgie's demo.ipynb does up to there,
with LLaVA's own class: Apple's only adds the edit head to it, and a Stable Diffusion whose repository is gone.
"""

import os
import sys

from exchange import answer_all

DEVICE = "cuda"
IMAGE_TOKENS = [f"[IMG{number}]" for number in range(8)]
VISION_REVISION = "32bd64288804d66eefd0ccbe215aa642df71cc41"
NEW_TOKENS = 96
NO_REPEAT = 3  # no three tokens twice


class Describer:
    """LLaVA-7B with MGIE's embeddings and output layer."""

    def __init__(self, folder, mllm):
        import torch
        from llava.model import LlavaLlamaForCausalLM
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionModel

        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.tokenizer.add_tokens(IMAGE_TOKENS, special_tokens=True)
        model = LlavaLlamaForCausalLM.from_pretrained(folder, low_cpu_mem_usage=True, torch_dtype=torch.float16)
        model.resize_token_embeddings(len(self.tokenizer))
        load_mgie(model, mllm)
        name = model.config.mm_vision_tower
        vision = CLIPVisionModel.from_pretrained(name, revision=VISION_REVISION, torch_dtype=torch.float16)
        self.processor = CLIPImageProcessor.from_pretrained(name, revision=VISION_REVISION)
        ids = self.tokenizer.convert_tokens_to_ids
        vision.config.use_im_start_end = model.config.mm_use_im_start_end
        vision.config.im_patch_token = ids("<im_patch>")
        vision.config.im_start_token, vision.config.im_end_token = ids("<im_start>"), ids("<im_end>")
        # Loading with low_cpu_mem_usage leaves LLaVA's own copy without weights.
        model.get_model().vision_tower = [vision.to(DEVICE)]
        self.patches = (vision.config.image_size // vision.config.patch_size) ** 2
        self.model = model.eval().to(DEVICE)

    def __call__(self, request, image):
        """(8, 4096) float16."""
        import torch

        pixels = self.processor.preprocess(image, return_tensors="pt")["pixel_values"]
        text = self.tokenizer(prompt_of(request["instruction"], self.patches), return_tensors="pt")
        with torch.inference_mode():
            output = self.model.generate(
                text.input_ids.to(DEVICE),
                attention_mask=text.attention_mask.to(DEVICE),
                images=pixels.to(DEVICE, torch.float16),
                do_sample=False,
                num_beams=1,
                max_new_tokens=NEW_TOKENS,
                no_repeat_ngram_size=NO_REPEAT,
                use_cache=True,
                return_dict_in_generate=True,
                output_hidden_states=True,
            )
        # Of each step the last layer: of the first for the whole prompt, of every later one for a token.
        states = torch.cat([step[-1][0] for step in output.hidden_states])
        first = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKENS[0])
        start = first_state(output.sequences[0].tolist(), first, len(states))
        return states[start : start + len(IMAGE_TOKENS)].cpu().numpy()


def first_state(tokens, image_token, states):
    """Where the eight states begin: the state that predicts a token stands one before it.

    Where the model wrote no [IMG0], or too late for eight states, the last eight but one are taken, as published.
    """
    last = states - len(IMAGE_TOKENS) - 1
    return min(tokens.index(image_token) - 1, last) if image_token in tokens else last


def prompt_of(instruction, patches):
    from llava.conversation import conv_templates

    conversation = conv_templates["vicuna_v1_1"].copy()
    question = f"what will this image be like if '{instruction}'"
    conversation.append_message(
        conversation.roles[0], "{}\n<im_start>{}<im_end>".format(question, "<im_patch>" * patches)
    )
    conversation.append_message(conversation.roles[1], None)
    return conversation.get_prompt()


def load_mgie(model, path):
    """The embeddings and the output layer of mllm.pt; the edit head in it is not needed here."""
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        model.get_parameter(name).data.copy_(state[name])


def main(llava, weights, mllm, folder):
    import torch

    sys.path.insert(0, os.path.abspath(llava))
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    answer_all(folder, Describer(weights, mllm))


if __name__ == "__main__":
    main(*sys.argv[1:])
