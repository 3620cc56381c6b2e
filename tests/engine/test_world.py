import multiprocessing

import torch
import torch.distributed as dist

from ganseg_dist.engine.world import World

PROCESSES = multiprocessing.get_context("forkserver")


def test_world_of_one_leaves_tensors_unchanged():
    world = World.joined()
    assert (world.rank, world.size, world.leads) == (0, 1, True)
    tensors = [torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])]
    world.average(tensors)
    world.broadcast(tensors)
    assert [t.tolist() for t in tensors] == [[1.0, 2.0], [[3.0]]]
    assert world.sum(torch.tensor([4.0])).tolist() == [4.0]


def run_rank(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    world = World.joined()
    averaged = [torch.full((2,), float(rank)), torch.full((1, 3), 10.0 + 4 * rank)]
    world.average(averaged)
    summed = world.sum(torch.tensor([1.0 + rank]))
    sent = [torch.full((2,), 5.0 + rank)]
    world.broadcast(sent)
    found = {"rank": world.rank, "leads": world.leads, "values": [t.tolist() for t in (*averaged, summed, *sent)]}
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_world_of_two_averages_sums_and_broadcasts(tmp_path):
    pair = [PROCESSES.Process(target=run_rank, args=(rank, tmp_path)) for rank in (0, 1)]
    for process in pair:
        process.start()
    for process in pair:
        process.join(timeout=60)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert [one["leads"] for one in found] == [True, False]
    for one in found:
        assert one["values"] == [[0.5, 0.5], [[12.0, 12.0, 12.0]], [3.0], [5.0, 5.0]]
