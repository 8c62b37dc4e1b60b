"""Structure from motion of one working folder by pycolmap; the only file that imports it.

  python colmap_worker.py WORK

reads WORK/job.json, WORK/images/*.png and WORK/masks/*.png.png, and writes COLMAP models to WORK/sparse/0, 1,
... No model is no error: the folder stays empty. Runs as a program: a crash of native code ends it alone.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pycolmap


def enlarge(folder, names, scale):
    """Pictures of a folder, ``scale`` times as large, into a folder beside it."""
    larger = folder.with_name(folder.name + "_larger")
    larger.mkdir()
    for name in names:
        bitmap = pycolmap.Bitmap.read(str(folder / name), True)
        bitmap.rescale(bitmap.width * scale, bitmap.height * scale)
        bitmap.write(str(larger / name))
    return larger


def extract(job, images, masks, database):
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads = job["threads"]
    options.use_gpu = False
    options.sift.max_num_features = job["features"]
    options.sift.peak_threshold = job["peak_threshold"]
    reader = pycolmap.ImageReaderOptions()
    if masks is not None:
        reader.mask_path = str(masks)
    known = job["intrinsics_px"]
    constant = known is None and job["one_camera"]
    if known is None:
        reader.camera_model = job["camera_model"]
    else:
        constant = all(row == known[0] for row in known)
        reader.camera_model = "PINHOLE"
        reader.camera_params = ",".join(repr(float(value)) for value in known[0])
    pycolmap.extract_features(
        str(database),
        str(images),
        image_names=job["names"],
        camera_mode=pycolmap.CameraMode.SINGLE if constant else pycolmap.CameraMode.PER_IMAGE,
        reader_options=reader,
        extraction_options=options,
        device=pycolmap.Device.cpu,
    )
    if known is not None and not constant:
        with pycolmap.Database.open(str(database)) as opened:
            by_name = {image.name: image for image in opened.read_all_images()}
            for name, row in zip(job["names"], known):
                camera = opened.read_camera(by_name[name].camera_id)
                camera.params = np.array(row)
                opened.update_camera(camera)


def match(job, database):
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads = job["threads"]
    options.use_gpu = False
    geometry = pycolmap.TwoViewGeometryOptions()
    geometry.ransac.random_seed = job["random_seed"]
    geometry.ransac.max_error = job["max_error"]
    shared = {"matching_options": options, "verification_options": geometry, "device": pycolmap.Device.cpu}
    if len(job["names"]) <= job["exhaustive_to"]:
        pycolmap.match_exhaustive(str(database), **shared)
    else:
        pairing = pycolmap.SequentialPairingOptions()
        pairing.overlap = job["overlap"]
        pycolmap.match_sequential(str(database), pairing_options=pairing, **shared)


def map_incrementally(job, database, images, out):
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size = job["min_model_size"]
    options.num_threads = job["threads"]
    options.random_seed = job["random_seed"]
    options.max_runtime_seconds = max(1, int(0.9 * job["time_limit"]))
    options.mapper.init_min_tri_angle = job["init_min_tri_angle"]
    options.mapper.init_min_num_inliers = job["init_min_inliers"]
    options.mapper.init_max_error = job["max_error"]
    options.mapper.abs_pose_min_num_inliers = job["pose_min_inliers"]
    options.mapper.filter_max_reproj_error = job["max_error"]
    options.mapper.filter_min_tri_angle = job["min_tri_angle"]
    options.triangulation.min_angle = job["min_tri_angle"]
    options.extract_colors = False
    if job["intrinsics_px"] is not None:
        options.ba_refine_focal_length = False
        options.ba_refine_extra_params = False
        options.mapper.abs_pose_refine_focal_length = False
        options.mapper.abs_pose_refine_extra_params = False
    return pycolmap.incremental_mapping(str(database), str(images), str(out), options=options)


def map_globally(job, database, images, out):
    options = pycolmap.GlobalPipelineOptions()
    options.min_model_size = job["min_model_size"]
    options.num_threads = job["threads"]
    options.random_seed = job["random_seed"]
    options.mapper.global_positioning.use_gpu = False
    options.mapper.bundle_adjustment.ceres.use_gpu = False
    if job["intrinsics_px"] is not None:
        options.mapper.bundle_adjustment.refine_focal_length = False
        options.mapper.bundle_adjustment.refine_extra_params = False
    return pycolmap.global_mapping(str(database), str(images), str(out), options=options)


def triangulate(job, database, images, known, out):
    """Points of pictures whose poses are known: the model in ``known``, with points, in ``out``/0."""
    model = pycolmap.Reconstruction(str(known))
    with pycolmap.Database.open(str(database)) as opened:
        model.transcribe_image_ids_to_database(opened)
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = job["threads"]
    options.random_seed = job["random_seed"]
    options.mapper.filter_max_reproj_error = job["max_error"]
    options.mapper.filter_min_tri_angle = job["min_tri_angle"]
    options.triangulation.min_angle = job["min_tri_angle"]
    options.fix_existing_frames = True
    return pycolmap.triangulate_points(
        model, str(database), str(images), str(out), options=options, refine_intrinsics=False
    )


def main():
    work = Path(sys.argv[1])
    job = json.loads((work / "job.json").read_text())
    pycolmap.logging.minloglevel = pycolmap.logging.WARNING.value
    pycolmap.set_random_seed(job["random_seed"])
    images, masks = work / "images", work / "masks" if job["masked"] else None
    if job["scale"] > 1:
        images = enlarge(images, job["names"], job["scale"])
        if masks is not None:
            masks = enlarge(masks, [f"{name}.png" for name in job["names"]], job["scale"])
    database, out = work / "database.db", work / "sparse"
    out.mkdir()
    extract(job, images, masks, database)
    match(job, database)
    if job["mode"] == "triangulate":
        (out / "0").mkdir()
        model = triangulate(job, database, images, work / "known", out / "0")
        model.write_binary(str(out / "0"))
        print(f"{len(model.points3D)} points", flush=True)
        return
    mapper = map_incrementally if job["mode"] == "incremental" else map_globally
    models = mapper(job, database, images, out)
    for index, model in models.items():  # what the mapper wrote itself may lack the last refinement
        (out / str(index)).mkdir(exist_ok=True)
        model.write_binary(str(out / str(index)))
    print(f"{len(models)} models", flush=True)


if __name__ == "__main__":
    main()
