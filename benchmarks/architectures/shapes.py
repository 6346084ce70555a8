"""The sizes of small models: what a configuration's settings become, by their names."""

SIZES = (
    (r"(.*_)?vocab_size(_per_layer_input)?", 320),
    (r"num_kv_heads|n_head_kv|.*num_key_value_heads|multi_query_group_num|num_query_groups", 2),
    (r"qformer_.*|n_heads?|num_heads|.*attention_heads", 4),
    (
        r"n_layers?|depth|encoder_layers|decoder_layers|num_decoder_layers|num_encoder_layers|.*hidden_layers|.*num_layers",
        2,
    ),
    (r"ffn_dim|n_inner|d_ff|d_inner|ffn_hidden_size|.*intermediate_size|.*ffn_dim|inner_dim|mlp_dim", 48),
    (
        r"d_model|n_embd|dim|model_dim|emb_dim|embedding_size|d_embed|projection_dim|.*hidden_size|.*embed_dim|.*hidden_dim",
        32,
    ),
    (r"d_kv|.*head_dim|key_length|value_length|hidden_size_per_layer_input|kv_channels", 8),
    (r"rotary_dim", 4),
    (r"q_lora_rank|kv_lora_rank|o_lora_rank|lru_width|adapter_rank|mamba_d_state|state_size|laurel_rank", 16),
    (r"n_routed_experts|num_experts|num_local_experts|moe_num_experts|n_experts", 4),
    (r"num_experts_per_tok|moe_topk|moe_k|num_experts_per_token|top_k_experts", 2),
    (r"n_group|topk_group|n_groups|mamba_n_groups|mamba_ngroups", 1),
    (r"first_k_dense_replace|moe_layer_start_index|num_dense_layers", 1),
    (
        r"max_position_embeddings|n_positions|max_target_positions|max_source_positions|max_seq_len.*|seq_length|n_ctx",
        128,
    ),
    (r".*sliding_window|attention_window|window_size|chunk_size|mamba_chunk_size", 8),
    (r"image_size", 16),
    (r"patch_size", 4),
)
"""Patterns of names and what such a number is at most; the first that matches counts."""

KEPT = {"model_type", "transformers_version", "architectures", "id2label", "label2id", "dtype"}
"""Settings that no size stands in."""

MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "partial_rotary_factor": 1.0}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_expand": 2}
MOE = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1}
HYBRID = ["linear_attention", "full_attention"]

OTHER: dict[str, dict[str, object]] = {
    "bailing_hybrid": {"num_hidden_layers": 4, "layer_group_size": 2, "partial_rotary_factor": 1.0, "rotary_dim": 8},
    "bamba": MAMBA | {"attn_layer_indices": [1]},
    "cohere_compass_text": {"layer_types": ["full_attention", "sliding_attention"]},
    "deepseek_v2": MOE,
    "dots1": MOE,
    "ernie4_5_vl_moe": {"text_config": {"moe_layer_start_index": 0}},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "glm46v": {"text_config": {"rope_parameters": MROPE}},
    "glm4v": {"text_config": {"rope_parameters": MROPE}},
    "glm4v_moe": {"text_config": {"rope_parameters": MROPE}},
    "glm_ocr": {"text_config": {"rope_parameters": MROPE}},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": MAMBA | {"layer_types": HYBRID},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "hunyuan_vl": {"text_config": {"head_dim": 8}},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_hidden_layers": 2},
    "lfm2_moe": {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]},
    "longcat_flash": {"qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "head_dim": 8, "v_head_dim": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "ministral": {"head_dim": 8},
    "mobilebert": {"true_hidden_size": 32, "intra_bottleneck_size": 32, "embedding_size": 32},
    "nemotron": {"num_key_value_heads": 2},
    "paddleocr_vl": {"text_config": {"rope_parameters": MROPE}},
    "qwen2_5_vl": {"text_config": {"rope_parameters": MROPE}},
    "qwen2_vl": {"text_config": {"rope_parameters": MROPE}},
    "recurrent_gemma": {"num_hidden_layers": 3, "block_types": ["recurrent", "recurrent", "attention"]},
    "reformer": {
        "is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "local"],
        "local_attn_chunk_length": 8, "feed_forward_size": 48, "attention_head_size": 8,
    },
    "xlstm": {"num_heads": 4, "qk_dim_factor": 1.0, "v_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba2": {
        "hidden_size": 32, "n_mamba_heads": 8, "mamba_headdim": 8, "mamba_expand": 2, "attention_hidden_size": 64,
        "attention_head_dim": 16, "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention"],
    },
}  # fmt: skip
"""Settings of single architectures, by model type, where a rule does not give a model that runs."""

INSTEAD = {
    "Llama4ForCausalLM": "llama4_text",
    "DbrxForCausalLM": "dbrx",
    "Emu3ForCausalLM": "emu3_text_model",
    "Qwen3_5ForCausalLM": "qwen3_5_text",
    "Qwen3_5MoeForCausalLM": "qwen3_5_moe_text",
    "Qwen4ExpForCausalLM": "qwen4_exp_text",
    "MusicgenForCausalLM": "musicgen_decoder",
    "MusicgenMelodyForCausalLM": "musicgen_melody_decoder",
    "Gemma4ForConditionalGeneration": "gemma4",
}
"""The configuration's model type where the table of transformers names the whole and the class takes a part."""
