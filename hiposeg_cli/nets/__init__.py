"""Segmentation networks behind one small seam: segmentation_models_pytorch decoders over timm backbones."""
